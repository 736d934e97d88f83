# Parting a live node waits for a member that is down; parting that one by force goes first, and then the other one goes on.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => 'CREATE TABLE t (id int PRIMARY KEY)');
my $c = BDR::Node->create('c');
join_node($c, $a);
$c->sql('INSERT INTO t SELECT generate_series(1, 100)');
$b->stop('immediate');
$a->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
$a->wait_ok("SELECT count(*) FROM bdr.part_progress WHERE node_name = 'node_c' AND progress ~ 'node_b'", '1', 'it waits for the member that is down');
$a->sql("SELECT bdr.part_node('node_b', force := true)", timeout => 60);
$a->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_b'", 'PARTED', 'that one can be parted meanwhile');
$a->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', 'then the first comes to its end');
$_->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'c is parted, says ' . $_->name) for ($a, $c);
$a->value_ok('SELECT count(*) FROM t', '100', 'and nothing of it is lost');
$a->wait_ok('SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_replication_origin), (SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL)',
	'0|0|0', 'nothing is left');
done_testing();
