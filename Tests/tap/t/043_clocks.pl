# Clocks that differ, and clocks that are set back: what is written on top of another node's change is never dated before it, so
# all nodes agree on what came last.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($library) = glob('/usr/lib/*/faketime/libfaketime.so.1');
plan skip_all => 'libfaketime is not installed' unless $library;

my $conf = "bdr.replay_progress_frequency = '300ms'";
my $offsets = PostgreSQL::Test::Utils::tempdir();

# A node whose clock reads what a file says, such as +2.5s, from the next call on.
sub set_clock
{
	my ($node, $offset) = @_;
	my $file = "$offsets/" . $node->name;
	PostgreSQL::Test::Utils::append_to_file("$file.new", "$offset\n");
	rename "$file.new", $file or die "rename: $!";
	return;
}
sub start_with_clock
{
	my ($node, $offset) = @_;
	set_clock($node, $offset);
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{FAKETIME_TIMESTAMP_FILE} = "$offsets/" . $node->name;
	local $ENV{FAKETIME_NO_CACHE} = 1;
	local $ENV{FAKETIME_DONT_FAKE_MONOTONIC} = 1;
	$node->start;
	return;
}

my $a = BDR::Node->create('a', conf => $conf);
my $b = BDR::Node->create('b', conf => $conf);
my $c = BDR::Node->create('c', conf => $conf);
my @all = ($a, $b, $c);
$a->sql('CREATE TABLE t (id int PRIMARY KEY, v text, w int DEFAULT 0)');
create_first_node($a);
join_node($b, $a);
join_node($c, $a);
sub same
{
	my ($name) = @_;
	all_caught_up(@all);
	same_rows($a, $_, 't', "$name: same rows on a and " . $_->name) for ($b, $c);
	return;
}
sub ahead
{
	my ($node) = @_;
	return $node->sql("SELECT extract(epoch FROM clock_timestamp()) - " . $a->sql('SELECT extract(epoch FROM clock_timestamp())'));
}

all_caught_up(@all);
$b->stop;
start_with_clock($b, '+3s');
cmp_ok(ahead($b), '>', 2, 'the clock of b is ahead');
my $position = $a->log_position;
$b->sql("INSERT INTO t VALUES (1, 'b')");
is($a->sql('SELECT count(*) FROM t'), '0', 'a change from the future is not there yet');
$a->wait_ok("SELECT v FROM t WHERE id = 1", 'b', 'it is applied when the time has come');
$a->value_ok('SELECT pg_xact_commit_timestamp(xmin) < clock_timestamp() FROM t', 't', 'and not before');
$a->sql("UPDATE t SET v = 'a' WHERE id = 1");
$_->wait_ok("SELECT v FROM t WHERE id = 1", 'a', 'what was written on top of it wins: ' . $_->name) for @all;
ok(wait_until(sub { $a->log_since($position) =~ qr/the clock of node "node_b" is \d+ ms ahead of this one's/ }), 'the log tells of the clock');

# Under load of all three, with deletes; the third node is behind.
$c->stop;
start_with_clock($c, '-1s');
my @writers = map {
	my ($node, $n) = ($all[$_], $_);
	my $session = $node->background_psql($node->db, on_error_stop => 0);
	$session->query_until(qr/begun/, qq{\\echo begun
		SELECT setseed(0.$n);
		DO \$\$ BEGIN
			FOR i IN 1..400 LOOP
				BEGIN
					IF random() < 0.3 THEN DELETE FROM t WHERE id = 1 + floor(random() * 20);
					ELSIF random() < 0.5 THEN UPDATE t SET v = '$n.' || i, w = w + 1 WHERE id = 1 + floor(random() * 20);
					ELSE INSERT INTO t VALUES (1 + floor(random() * 20), '$n.' || i) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v;
					END IF;
				EXCEPTION WHEN deadlock_detected THEN NULL;
				END;
				COMMIT;
			END LOOP;
		END \$\$;
	});
	$session
} 0 .. 2;
$_->quit for @writers;
same('clocks 3 s ahead and 1 s behind');

# A clock that is set back a little: commits wait until it has come back to where it was.
set_clock($b, '+3s');
$b->sql("INSERT INTO t VALUES (100, 'before') ON CONFLICT (id) DO UPDATE SET v = 'before'");
set_clock($b, '+2.5s');
$b->sql("UPDATE t SET v = 'after' WHERE id = 100");
$b->value_ok("SELECT v FROM t WHERE id = 100", 'after', 'written with the clock set back');
$_->wait_ok("SELECT v FROM t WHERE id = 100", 'after', 'the later write wins: ' . $_->name) for @all;
$b->sql("INSERT INTO t VALUES (101, 'one')");
my $one = $b->sql('SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM t WHERE id = 101');
set_clock($b, '+2.1s');
$b->sql("INSERT INTO t VALUES (102, 'two')");
cmp_ok($b->sql('SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM t WHERE id = 102'), '>', $one, 'commit times go forward');
same('a clock set back by less than a second');

# By much: it is not waited for, and the log says so.
$position = $b->log_position;
set_clock($b, '-60s');
$b->sql("INSERT INTO t VALUES (103, 'late')");
ok(wait_until(sub { $b->log_since($position) =~ qr/the clock of this server is [\d.]+ s behind the latest commit/ }), 'a clock set back by much is told of');
set_clock($b, '+0s');

# As BDR has it: no wait, a warning.
$a->sql("ALTER SYSTEM SET bdr.maximum_clock_skew_action = 'warn'");
$a->sql('SELECT pg_reload_conf()');
$a->wait_ok('SHOW bdr.maximum_clock_skew_action', 'warn', 'a only warns');
all_caught_up(@all);
set_clock($b, '+30s');
$b->sql("INSERT INTO t VALUES (104, 'future')");
$a->wait_ok('SELECT v FROM t WHERE id = 104', 'future', 'a change from the future is applied at once');
$a->value_ok('SELECT pg_xact_commit_timestamp(xmin) > clock_timestamp() FROM t WHERE id = 104', 't', 'with its time');

done_testing();
