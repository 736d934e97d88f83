# What the guides tell to type works: the statements of README.md's steps, and those of docs/walk.md, in order, on two new servers
# each. They run word for word, except that in connection strings host1 and host2 become what leads to the servers of the test.
#   README.md     <!-- run: host1 host2 --> before a block: where it is run. Every ```sql block has one
#   docs/walk.md  the prompt says where; <!-- check --> before a block: rows that it prints are compared

use strict;
use warnings FATAL => 'all';

use BDR::Test;
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
	my ($prefix) = @_;
	my %servers = map { $_ => BDR::Node->create("$prefix$_") } qw(host1 host2);
	$_->sql('CREATE ROLE user1 SUPERUSER LOGIN') for values %servers;
	return \%servers;
}

# Runs a text on a server as psql shows it, aligned; gives back status, output and errors.
sub type
{
	my ($servers, $host, $sql) = @_;
	$sql =~ s/\bhost=(host[12])\b/my $s = $servers->{$1}; 'host=' . $s->host . ' port=' . $s->port/ge;
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

done_testing();
