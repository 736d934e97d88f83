# What the guides tell to type works: the statements of README.md's steps, those of docs/walk.md, and those of a move in
# docs/coming-from.md, in order, on new servers. They run word for word, except that in connection strings host0, host1 and host2 become what leads to the servers of the test.
#   README.md     <!-- run: host1 host2 --> before a block: where it is run. Every ```sql block has one. Of the other blocks, settings and
#                 access rules are compared with what the server says
#   docs/coming-from.md, the move by native logical replication: the same, and <!-- wait: host1 --> until the query gives t,
#                 <!-- print: host0 host1 host2 --> run on the first, and what it prints on the others
#   docs/walk.md  the prompt says where; <!-- check --> before a block: rows that it prints are compared

use strict;
use warnings FATAL => 'all';

use BDR::HA;
use BDR::Node;
use BDR::Test;
use PostgreSQL::Test::Utils ();
use Test::More;

sub page
{
	my ($name) = @_;
	my ($path) = grep { -e } ("../$name", "../../$name");
	die "$name is not there" unless defined $path;
	return slurp_file($path);
}

sub servers
{
	my ($prefix, @further) = @_;
	my %servers = map { $_ => BDR::Node->create("$prefix$_", preload => $_ eq 'host0' ? '' : 'bdr') } qw(host1 host2), @further;
	$_->sql('CREATE ROLE user1 SUPERUSER LOGIN') for values %servers;
	return \%servers;
}

# Runs a text on a server as psql shows it, aligned; gives back status, output and errors.
sub type
{
	my ($servers, $host, $sql) = @_;
	$sql =~ s/\bhost=(host[0-2])\b/my $s = $servers->{$1}; 'host=' . $s->host . ' port=' . $s->port/ge;
	return $servers->{$host}->psql($servers->{$host}->db, $sql,
		extra_params => [ '-P', 'format=aligned', '-P', 'tuples_only=off', '-v', 'ON_ERROR_STOP=1' ]);
}

sub caught_up
{
	my ($servers) = @_;
	for my $node (values %$servers)
	{
		my ($status, $out) = $node->psql($node->db, 'SELECT count(*) FROM bdr.subscription');
		return 1 unless $status == 0 && $out eq '1';
	}
	return wait_caught_up($servers->{host1}, $servers->{host2});
}

# README.md
my $servers = servers('r');
my ($steps) = page('README.md') =~ /^## Two nodes, step by step\n(.*?)^## /ms;
my $blocks = 0;
while ($steps =~ /(?:^<!-- run: ([^>]*) -->\n)?^```sql\n(.*?)^```/msg)
{
	my ($where, $sql) = ($1, $2);
	$blocks++;
	ok(defined $where, "README.md, block $blocks: it is marked where to run it") or next;
	for my $host (split ' ', $where)
	{
		my ($status, $out, $err) = type($servers, $host, $sql);
		is($status, 0, "README.md, block $blocks on $host") or diag("$sql\n$out\n$err");
	}
}
cmp_ok($blocks, '>=', 4, 'README.md has its steps');
is(join(' ', $steps =~ /^### (\d)/mg), '1 2 3 4 5 6', 'README.md has six of them');
# The second: the server has these settings, takes these lines for access rules, and is checked to be set up right.
my ($settings) = $steps =~ /^```\n(wal_level = .*?)^```/ms;
my $host1 = $servers->{host1};
while ($settings =~ /^(\w+) = '?(\w+)'?$/mg)
{
	$host1->value_ok("SELECT setting FROM pg_settings WHERE name = '$1'", $2, "README.md: $1");
}
my ($rules) = $steps =~ /^```\n(# TYPE .*?)^```/ms;
PostgreSQL::Test::Utils::append_to_file($host1->data_dir . '/pg_hba.conf', $rules);
$host1->value_ok(q[SELECT count(*), count(error), string_agg(DISTINCT database[1] || ' ' || user_name[1] || ' ' || auth_method, '') FROM pg_hba_file_rules WHERE address LIKE 'host_'],
	'2|0|db1 user1 scram-sha-256', 'README.md: the access rules');
$host1->value_ok("SELECT count(*) FROM bdr.check_settings() WHERE status NOT IN ('ok', 'note')", 0, 'README.md: the server is set up right');
# The fifth: the tool finds nothing wrong.
for my $command ('status', 'doctor')
{
	my ($status, $out, $err) = BDR::HA::run_bdrctl($command, '--dsn', $host1->dsn);
	is($status, 0, "README.md: bdrctl $command") or diag("$out\n$err");
}
for my $host (qw(host1 host2))
{
	$servers->{$host}->wait_ok('SELECT node_name, peer_state_name FROM bdr.node_summary ORDER BY 1',
		"initial_node|ACTIVE\nnext_node|ACTIVE", "README.md: $host sees both nodes active");
	$servers->{$host}->wait_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('orders') AND attnum > 0", '3',
		"README.md: $host has the changed table");
}
logs_ok(values %$servers);
$_->stop for values %$servers;

# docs/walk.md, without the third node
$servers = servers('w');
my $walk = page('docs/walk.md');
$walk =~ s/^## More nodes\n.*?(?=^## )//ms or die 'docs/walk.md has no section of more nodes';
my ($statements, $compared) = (0, 0);
while ($walk =~ /(^<!-- check -->\n)?^```\n(.*?)^```/msg)
{
	my ($check, $block) = ($1, $2);
	while ($block =~ /^db1@(host\d)=# (.*?;)[ \t]*\n(.*?)(?=^db1@|\z)/msg)
	{
		my ($host, $sql, $expected) = ($1, $2, $3);
		$statements++;
		caught_up($servers) or last;
		my ($status, $out, $err) = type($servers, $host, $sql);
		is($status, 0, "docs/walk.md on $host: " . $sql =~ s/\s+/ /gr) or diag($err);
		next unless $check && $expected =~ /^\(\d+ rows?\)/m;
		s/[ \t]+$//mg, s/\s+\z// for $expected, $out;
		# what is removed in the background is gone a moment later
		wait_until(sub {
			(undef, $out) = type($servers, $host, $sql);
			s/[ \t]+$//mg, s/\s+\z// for $out;
			return $out eq $expected;
		}) if $sql =~ /^SELECT (?!bdr\.)/;
		$compared++;
		is($out, $expected, '... and prints what the page says');
	}
}
cmp_ok($statements, '>=', 20, 'docs/walk.md has its statements');
cmp_ok($compared, '>=', 4, 'docs/walk.md has rows that are compared');
logs_ok(values %$servers);
$_->stop for values %$servers;

# docs/coming-from.md: the old server goes on writing until the end
$servers = servers('m', 'host0');
my ($old, $new, $next) = @$servers{qw(host0 host1 host2)};
$old->sql('CREATE TABLE orders (id serial PRIMARY KEY, note text); INSERT INTO orders (note) SELECT i FROM generate_series(1, 100) i');
my ($move) = page('docs/coming-from.md') =~ /^### To new servers.*?\n(.*?)^### /ms;
my ($command) = $move =~ /^ *(pg_dump -h host0 .*)$/m;
$command =~ s/-h (host[0-2])/my $s = $servers->{$1}; '-h ' . $s->host . ' -p ' . $s->port/ge;
is(system("$command >/dev/null"), 0, 'docs/coming-from.md: the structure is copied');
$blocks = 0;
while ($move =~ /^ *<!-- (run|wait|print): ([^>]*) -->\n *```sql\n(.*?)^ *```/msg)
{
	my ($how, $where, $sql) = ($1, $2, $3);
	my ($host, @others) = split ' ', $where;
	$blocks++;
	if ($how eq 'wait')
	{
		$servers->{$host}->wait_ok($sql, 't', "docs/coming-from.md, block $blocks on $host");
		next;
	}
	my ($status, $out, $err) = $how eq 'run' ? type($servers, $host, $sql) : $servers->{$host}->psql($servers->{$host}->db, $sql);
	is($status, 0, "docs/coming-from.md, block $blocks on $host") or diag("$sql\n$out\n$err");
	if ($how eq 'print')
	{
		isnt($out, '', '... prints commands') or next;
		is(scalar $servers->{$_}->psql($servers->{$_}->db, $out), 0, "... which work on $_") for @others;
	}
	# somebody writes until the application is stopped, which is before the last wait
	$old->sql("INSERT INTO orders (note) VALUES ('while moving')") if substr($move, pos $move) =~ /<!-- wait: host0/;
}
cmp_ok($blocks, '>=', 8, 'docs/coming-from.md has its steps');
same_ok($new, $next, 'orders', 'both new nodes have the same rows');
same_rows($old, $new, 'orders', '... and those of the old server');
my $last = $old->sql('SELECT max(id) FROM orders');
for my $node ($new, $next)
{
	my $id = $node->sql("INSERT INTO orders (note) VALUES ('moved') RETURNING id");
	cmp_ok($id, '>', $last, $node->name . ' goes on above the old values');
}
same_ok($new, $next, 'orders', 'no two rows have the same key');
$new->value_ok("SELECT count(*) FROM orders WHERE note = 'moved'", '2', 'each has its row');
logs_ok($new, $next);

done_testing();
