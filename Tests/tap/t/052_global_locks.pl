# Global locks of three nodes: DDL at the same time everywhere, tables that nobody writes to meanwhile, and the ways out when
# somebody who has a lock is gone.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;
use Time::HiRes qw(time usleep);

my ($a, $b, $c) = map { BDR::Node->create($_) } qw(a b c);
my @nodes = ($a, $b, $c);
$a->sql('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)');
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

# no locks are left on any node
sub free_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = 1;
	$good &= $_->wait_ok('SELECT count(*) FROM bdr.global_locks', '0', "$name: no lock on " . $_->name) for @nodes;
	return $good;
}

# Cost.
{
	my $begin = time;
	$a->sql(join '', map { "CREATE TABLE cost_$_ (id int PRIMARY KEY);" } 1 .. 20);
	my $each = (time - $begin) / 20;
	cmp_ok($each, '<', 0.1, sprintf 'CREATE TABLE takes %.1f ms', $each * 1000);
	free_ok('after DDL');
	$begin = time;
	$b->sql('ALTER TABLE t DROP COLUMN v; ');
	note sprintf 'ALTER TABLE that takes the DML lock: %.1f ms', (time - $begin) * 1000;
	$b->sql('ALTER TABLE t ADD COLUMN v text');
	all_same_ok(\@nodes, ['t'], 'a changed table');
	free_ok('after ALTER TABLE');
}

logs_ok(@nodes);
done_testing;
