# Sequences of kind galloc: ranges of values that a majority of the group grants to a node. No value comes twice, whatever
# crashes, and nodes that are down don't stop the others.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($a, $b, $c, $d) = map { BDR::Node->create($_, conf => "bdr.default_sequence_kind = 'local'\nbdr.replay_progress_frequency = '300ms'") } qw(a b c d);
my @all = ($a, $b, $c);
$a->sql(q{
	CREATE TABLE t (id serial PRIMARY KEY, origin text);
	CREATE TABLE small (id smallserial PRIMARY KEY, origin text);
	CREATE TABLE u (id serial PRIMARY KEY, origin text);
	CREATE SEQUENCE wide INCREMENT 2000 AS smallint MAXVALUE 30000;
	CREATE SEQUENCE big;
	CREATE SEQUENCE seven AS int START 333 CACHE 5 INCREMENT 7;
	INSERT INTO u (origin) SELECT 'old' FROM generate_series(1, 1234);
});
create_first_node($a);
join_node($b, $a);
join_node($c, $a);

my $set = sub { my ($sequence, @rest) = @_; return "SELECT bdr.alter_sequence_set_kind('$sequence', 'galloc'" . join('', map { ", $_" } @rest) . ')'; };
$a->fails_ok($set->('wide'), '22023', qr/INCREMENT of 2000/, undef, 'an increment that is larger than a range');
# on one node for all
$a->sql($set->($_)) for qw(t_id_seq small_id_seq seven);
$_->wait_ok("SELECT count(*) FROM bdr.sequences WHERE seqkind = 'galloc'", '3', 'kinds on ' . $_->name) for @all;
for my $node (@all)
{
	my $name = $node->name;
	$node->wait_ok("SELECT count(*) FROM bdr.sequence_chunk WHERE relname = 't_id_seq'", '2', "$name has two ranges ahead of time");
	$node->value_ok("INSERT INTO t (origin) SELECT '$name' FROM generate_series(1, 10); SELECT count(*) FROM t WHERE origin = '$name'", '10', "$name inserts");
	$node->value_ok("SELECT n > 0 AND n = currval('seven') AND n = lastval() FROM nextval('seven') n", 't', "$name: currval() and lastval()");
}
all_same_ok(\@all, ['t'], 'rows of all');
$a->value_ok('SELECT count(*), count(DISTINCT id / 1000000) >= 3 FROM t', '30|t', 'from ranges of their own');
$a->value_ok("SELECT seq_chunk_size, seq_allocated_up_to >= 6000000, seq_nallocs > 0, seq_last_alloc < clock_timestamp() FROM bdr.sequence_alloc WHERE seqid = 't_id_seq'::regclass",
	'1000000|t|t|t', 'bdr.sequence_alloc');

# Ranges run out, and others are there.
for my $node (@all)
{
	my $name = $node->name;
	$node->sql("INSERT INTO small (origin) SELECT '$name' FROM generate_series(1, 2500)");
}
all_same_ok(\@all, ['small'], 'ranges that run out');
$a->value_ok('SELECT count(*), count(DISTINCT id), max(id) <= 32767 FROM small', '7500|7500|t', 'more values than two ranges have');

# A used sequence: nothing that any node has used is granted.
$b->sql("INSERT INTO u (id, origin) VALUES (DEFAULT, 'b')") if 0;
$b->sql("SELECT setval('u_id_seq', 5000)");
$c->sql($set->('u_id_seq'));
$_->wait_ok("SELECT seqkind FROM bdr.sequences WHERE relname = 'u_id_seq'", 'galloc', 'known to ' . $_->name) for @all;
$_->sql("INSERT INTO u (origin) SELECT 'new' FROM generate_series(1, 100)") for @all;
all_same_ok(\@all, ['u'], 'a sequence that was used');
$a->value_ok("SELECT min(id) > 5000, count(DISTINCT id) FROM u WHERE origin = 'new'", 't|300', 'goes on above what any node has used');
$a->value_ok('SELECT count(*) FROM bdr.conflict_history', '0', 'no conflict');
$a->sql($set->('big', 77000));
# which node gets the first range is open
$a->value_ok("SELECT n >= 77000 AND n % 1000000000 < 77100 FROM nextval('big') n", 't', 'a start value');

# Made and used in one transaction; taken back; made again.
$a->value_ok("BEGIN; SET bdr.default_sequence_kind = 'distributed'; CREATE TABLE n (id serial, v int); INSERT INTO n (v) VALUES (1), (2);
	SELECT count(DISTINCT id) FROM n; SELECT seqkind FROM bdr.sequences WHERE relname = 'n_id_seq'; ROLLBACK", "2\ngalloc", 'made and used in one transaction');
$a->value_ok("BEGIN; SET bdr.default_sequence_kind = 'distributed'; CREATE TABLE n (id int GENERATED ALWAYS AS IDENTITY, v int); INSERT INTO n (v) VALUES (1), (2);
	COPY n (v) FROM stdin;\n1\n2\n\\.\nSELECT count(DISTINCT id), max(id) < 2000000000 FROM n; ROLLBACK", '4|t', 'and again, by COPY');
$a->fails_ok('ALTER SEQUENCE t_id_seq RENAME TO other', '0A000', qr/another name or schema/, undef, 'no other name');
$a->fails_ok('CREATE SCHEMA other; ALTER TABLE t SET SCHEMA other', '0A000', qr/another name or schema/, undef, 'no other schema');
$a->sql('ALTER TABLE t RENAME COLUMN origin TO origin2; ALTER TABLE t RENAME COLUMN origin2 TO origin');

# A peer is down: the majority goes on. Two are: what is left is used up, and then there is an error that says why.
$c->stop('immediate');
my $used = $a->sql("SELECT nextval('small_id_seq')");
$a->sql("INSERT INTO small (origin) SELECT 'a2' FROM generate_series(1, 3000)");
$a->value_ok("SELECT count(*) FROM small WHERE origin = 'a2'", '3000', 'with a peer down, ranges are granted');
$a->wait_ok("SELECT count(*) FROM bdr.sequence_chunk, small_id_seq s WHERE relname = 'small_id_seq' AND sequence_chunk.last_value > s.last_value", '2', 'and ahead of time');
$b->stop('immediate');
my $error = $a->error_of("DO \$\$ BEGIN FOR i IN 1..5000 LOOP PERFORM nextval('small_id_seq'); END LOOP; END \$\$");
is($error->{sqlstate}, '55000', 'without a majority, values end');
like($error->{message}, qr/has no values of global sequence "small_id_seq" left/, 'the message');
like($error->{detail} // '', qr/node "node_[bc]"/, 'says who is missing');
$a->value_ok("SELECT nextval('t_id_seq') > 0", 't', 'another sequence has values still');
my $session = $a->background_psql($a->db, on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr/begun/, "\\echo begun\nSELECT nextval('small_id_seq');\n");
ok($a->wait_for("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", '1'), 'a statement waits');
$a->sql("SELECT pg_cancel_backend($pid)");
$a->wait_ok("SELECT state FROM pg_stat_activity WHERE pid = $pid", 'idle', 'and can be canceled', timeout => 5);
$session->quit;
$_->start for $b, $c;
ok($a->wait_for("SELECT nextval('small_id_seq') > 0", 't'), 'it goes on when they are back');

# A node that joins gets the kinds, and ranges of its own.
join_node($d, $b);
push @all, $d;
$d->value_ok("SELECT string_agg(relname || ' ' || seqkind, ',' ORDER BY relname) FROM bdr.sequences WHERE seqkind <> 'local'",
	'big galloc,seven galloc,small_id_seq galloc,t_id_seq galloc,u_id_seq galloc', 'kinds come along in a join');
$d->sql("INSERT INTO t (origin) SELECT 'd' FROM generate_series(1, 10)");
all_same_ok(\@all, [ 't', 'small' ], 'with a node that has joined');

# Clients on all nodes, with crashes.
my $rounds = 40;
my $load = sub { my ($node, $n) = @_;
	my $session = $node->background_psql($node->db, on_error_stop => 0);
	$session->query_until(qr/begun/, qq{\\echo begun
		DO \$\$ BEGIN FOR n IN 1..$rounds LOOP
			INSERT INTO u (origin) SELECT '} . $node->name . qq{.$n' FROM generate_series(1, 200) g; COMMIT;
		END LOOP; END \$\$;
	});
	return $session; };
my @sessions = map { my $node = $_; map { $load->($node, $_) } 1 .. 2 } @all;
for my $node ($b, $d)
{
	$node->stop('immediate');
	$node->start;
}
for my $session (@sessions) { eval { $session->quit }; }
$_->sql("INSERT INTO u (origin) SELECT 'after' FROM generate_series(1, 200)") for @all;
all_same_ok(\@all, ['u'], 'after crashes');
$a->value_ok('SELECT count(*) - count(DISTINCT id) FROM u', '0', 'no value twice');
$_->value_ok("SELECT count(*) FROM bdr.conflict_history", '0', 'no conflict on ' . $_->name) for @all;
my $ranges = join ' UNION ALL ', map {
	"(VALUES " . join(',', map { my ($r, $f, $l) = split /\|/; "('$r', $f, $l)" } split /\n/, $_->sql('SELECT relname, first_value, last_value FROM bdr.sequence_chunk')) . ')'
} @all;
$a->value_ok("WITH r (relname, f, l) AS ($ranges) SELECT count(*) FROM r x JOIN r y ON x.relname = y.relname AND x.f < y.f AND x.l >= y.f", '0', 'no range overlaps another one');
logs_ok($a, $c);

done_testing();
