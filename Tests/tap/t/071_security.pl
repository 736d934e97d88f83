# Nodes that connect by TLS with certificates and SCRAM, as roles that are no superusers: such a role makes nodes, lets them join and
# part, and manages them. What protects keys and accounts is shown to nobody. Who is not of the group gets nothing.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use Test::More;

plan skip_all => 'openssl is not there' unless `openssl version 2>/dev/null`;

my $needle = 'NeedleInTheLog';
my $password = "pass $needle";
my $key_password = "key$needle";
my $dir = PostgreSQL::Test::Utils::tempdir();

sub openssl
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'openssl', @_ ], '<', \undef, '>', \$out, '2>', \$err) or die "openssl @_: $err";
	return;
}

# A certificate of our authority.
sub certificate
{
	my ($name, $subject, $extension, @key) = @_;
	openssl('req', '-new', '-newkey', 'rsa:2048', '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr", '-subj', "/CN=$subject", @key);
	PostgreSQL::Test::Utils::append_to_file("$dir/$name.ext", "$extension\n");
	openssl('x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-days', '10',
		'-extfile', "$dir/$name.ext", '-out', "$dir/$name.crt");
	chmod 0600, "$dir/$name.key" or die $!;
	return;
}
openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/ca.key", '-out', "$dir/ca.crt", '-days', '10', '-subj', '/CN=authority');
certificate('server', 'server', 'subjectAltName=IP:127.0.0.1', '-nodes');
certificate('client', 'peer', 'extendedKeyUsage=clientAuth', '-passout', "pass:$key_password");
certificate('stranger', 'stranger', 'extendedKeyUsage=clientAuth', '-nodes');

sub create
{
	my ($name) = @_;
	my $node = BDR::Node->create($name, start => 0, conf => "listen_addresses = '127.0.0.1'\npassword_encryption = 'scram-sha-256'
ssl = on\nssl_cert_file = '$dir/server.crt'\nssl_key_file = '$dir/server.key'\nssl_ca_file = '$dir/ca.crt'
log_connections = on\nlog_statement = 'all'\n");
	open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die "pg_hba.conf: $!";
	print $hba "local all all trust\nhostssl all peer 127.0.0.1/32 scram-sha-256 clientcert=verify-full\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
	close $hba;
	$node->start;
	$node->create_database;
	$node->sql('CREATE EXTENSION bdr');
	$node->sql('CREATE ROLE peer LOGIN REPLICATION IN ROLE bdr_superuser PASSWORD ' . quote_literal($password));
	$node->sql('GRANT CREATE ON DATABASE db1 TO peer; GRANT ALL ON SCHEMA public TO peer');
	$node->sql('ALTER DATABASE db1 SET output_plugin_libraries = pgoutput, test_decoding, bdr') if plugin_list_known($node);
	return $node;
}
sub tls
{
	my ($node, %further) = @_;
	return $node->dsn(host => '127.0.0.1', user => 'peer', password => $password, sslmode => 'verify-full', sslrootcert => "$dir/ca.crt",
		sslcert => "$dir/client.crt", sslkey => "$dir/client.key", sslpassword => $key_password, %further);
}
# As the role itself, by the socket.
sub as { my ($node, $sql, $user) = @_; return $node->safe_psql($node->db, $sql, connstr => $node->dsn(user => $user // 'peer')); }

my %seen;

# ---- a role that is no superuser makes a group ----

my ($a, $b) = map { create($_) } qw(a b);
as($a, q{CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i; CREATE SEQUENCE s;
	CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (100); INSERT INTO parent VALUES (1);
	CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$;
	CREATE TABLE with_trigger (id int PRIMARY KEY, v text, REF int REFERENCES t); CREATE TRIGGER f BEFORE INSERT ON with_trigger FOR EACH ROW EXECUTE FUNCTION f();
	INSERT INTO with_trigger VALUES (1, 'v', 1);
	DO $$ BEGIN FOR i IN 1 .. 200 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, v text UNIQUE)', i); END LOOP; END $$});
as($a, "SELECT bdr.create_node('node_a', " . quote_literal(tls($a)) . ')');
as($a, "SELECT bdr.create_node_group('the_node_group')");
as($a, 'SELECT bdr.wait_for_join_completion()');
$a->value_ok('SELECT node_name, peer_state_name FROM bdr.local_node_summary', 'node_a|ACTIVE', 'a member of bdr_superuser makes a node and a group');

# What is not encrypted, or comes with another certificate, is refused before anything is made.
as($b, "SELECT bdr.create_node('node_b', " . quote_literal(tls($b)) . ')');
for my $case (
	[ tls($a, sslmode => 'disable', sslcert => '', sslkey => ''), qr/no pg_hba.conf entry/, 'without TLS' ],
	[ tls($a, sslcert => "$dir/stranger.crt", sslkey => "$dir/stranger.key"), qr/certificate|authentication/, 'with the certificate of somebody else' ],
	[ tls($a, sslrootcert => "$dir/stranger.crt"), qr/certificate verify failed/, 'a server that is not the right one' ],
	[ tls($a, sslpassword => "not $needle"), qr/private key|bad decrypt/, 'a key that can not be read' ],
	[ tls($a, password => "not $needle"), qr/password authentication failed/, 'a wrong password' ])
{
	my ($dsn, $message, $name) = @$case;
	my $error = $b->error_of('SELECT bdr.join_node_group(' . quote_literal($dsn) . ')', connstr => $b->dsn(user => 'peer'));
	like($error->{message} // '', $message, "refused: $name");
	unlike(join(' ', map { $error->{$_} // '' } qw(message detail hint)), qr/$needle/, 'without what was given');
}

# What belongs to others can't be made by a role that is not one of them.
$_->sql('CREATE ROLE other') for ($a, $b);
$a->sql('CREATE TABLE foreign_table (id int PRIMARY KEY); ALTER TABLE foreign_table OWNER TO other');
my $foreign = $b->error_of('SELECT bdr.join_node_group(' . quote_literal(tls($a)) . ')', connstr => $b->dsn(user => 'peer'));
is($foreign->{sqlstate}, '42501', 'tables of another owner are refused');
like($foreign->{hint} // '', qr/GRANT "other" TO "peer"/, 'with what to type');
$a->sql('DROP TABLE foreign_table');
$b->sql('REVOKE CREATE ON DATABASE db1 FROM peer');
$foreign = $b->error_of('SELECT bdr.join_node_group(' . quote_literal(tls($a)) . ')', connstr => $b->dsn(user => 'peer'));
like($foreign->{hint} // '', qr/GRANT CREATE ON DATABASE/, 'so is a role that may create nothing');
$b->sql('GRANT CREATE ON DATABASE db1 TO peer');

# pg_dump waits for this table until it was seen
my $locker = $a->background_psql($a->db);
$locker->query_safe('BEGIN; LOCK TABLE parent');
as($b, 'SELECT bdr.join_node_group(' . quote_literal(tls($a)) . ', wait_for_completion := false)');
wait_until(sub { look_at_processes($needle, \%seen); return $seen{programs}{pg_dump}; }, timeout => 60);
$locker->query_safe('COMMIT');
$locker->quit;
wait_until(sub { look_at_processes($needle, \%seen); return $b->sql('SELECT peer_state_name FROM bdr.local_node_summary') =~ /ACTIVE/ || $b->sql('SELECT step FROM bdr.join_state') eq 'failed'; }, timeout => 60);
$b->wait_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'ACTIVE', 'a node joins as a role that is no superuser')
  or diag($b->sql('SELECT step, error_message, error_detail, error_hint FROM bdr.join_state'));
ok(!$seen{betrayed}, 'no process shows a password or what protects the key') or diag(@{ $seen{betrayed} });
ok($seen{programs}{pg_dump}, 'pg_dump was seen at work');
replicating_ok($a, $b, 'both directions replicate');
same_ok($a, $b, $_, "$_ is copied") for qw(t parent with_trigger);
$b->value_ok("SELECT count(*), count(DISTINCT relowner::regrole), min(relowner::regrole::text) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')",
	'204|1|peer', 'objects have the owner that they have there');
as($a, "INSERT INTO t VALUES (-1, 'a'); INSERT INTO with_trigger VALUES (2, 'a', 1)");
as($b, "UPDATE t SET v = 'b' WHERE id = 1; DELETE FROM t WHERE id = 2");
same_ok($a, $b, $_, "$_ replicates") for qw(t with_trigger);
for my $node ($a, $b)
{
	$node->value_ok(q{SELECT count(*) > 0, bool_and(ssl), bool_and(client_dn ~ 'CN=peer') FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE usename = 'peer' AND client_addr IS NOT NULL},
		't|t|t', 'all connections of the other node are encrypted, with its certificate: ' . $node->name);
}

# ---- and manages it ----

as($a, "SELECT bdr.alter_subscription_disable()");
$a->wait_ok('SELECT DISTINCT subscription_status FROM bdr.subscription_summary', 'disabled', 'subscriptions are switched off');
as($a, "SELECT bdr.alter_subscription_enable()");
replicating_ok($a, $b, 'and on');
as($_, "SELECT bdr.alter_node_set_conflict_resolver((SELECT node_name FROM bdr.local_node_summary), 'insert_exists', 'update')") for ($a, $b);
$a->value_ok("SELECT conflict_resolver FROM bdr.node_conflict_resolvers WHERE conflict_type = 'insert_exists'", 'update', 'a resolver is set');
is(as($a, 'SELECT bdr_version FROM bdr.group_versions_details'), join("\n", ($a->sql('SELECT bdr.bdr_version()')) x 2), 'the views of the group');
as($a, 'SELECT bdr.request_replay_progress_update()');
my @settable = split /\n/, $a->sql("SELECT name || ' = ' || quote_literal(setting) FROM pg_settings WHERE name ~ '^bdr[.]' AND context IN ('superuser', 'user') AND name <> 'bdr.internal_session'");
cmp_ok(scalar @settable, '>', 5, 'there are settings of sessions');
as($a, "SET $_") for @settable;
pass('a member of bdr_superuser sets them all');
$a->sql('CREATE ROLE nobody LOGIN; CREATE ROLE app LOGIN IN ROLE bdr_application');
for my $user (qw(nobody app))
{
	is($a->error_of('SET bdr.synchronous_commit = on', connstr => $a->dsn(user => $user))->{sqlstate}, '42501', "$user does not");
	for my $call ("bdr.part_node('node_b')", "bdr.drop_node('node_b', force := true)", "bdr.create_node('x', 'dbname=x')", "bdr.join_node_group('dbname=x')",
		"bdr.alter_node_interface('node_b', 'dbname=x')", "bdr.alter_subscription_disable()", "bdr.internal_peer_call('leave', NULL)", "bdr.internal_group_rows('versions')",
		"bdr.internal_walsenders()", "bdr.check_settings('host=127.0.0.1')")
	{
		is($a->error_of("SELECT $call", connstr => $a->dsn(user => $user))->{sqlstate}, '42501', "$user may not call $call");
	}
}

# ---- who is not of the group ----

$a->sql('CREATE ROLE replicator LOGIN REPLICATION');
my $slot = $a->sql("SELECT slot_name FROM bdr.node_slots WHERE target_name = 'node_b'");
my $error = $a->error_of("CREATE_REPLICATION_SLOT stranger LOGICAL bdr (SNAPSHOT 'nothing')", replication => 'database', connstr => $a->dsn(user => 'replicator'));
my $refused = $a->error_of('START_REPLICATION SLOT stranger LOGICAL 0/0 ("proto_min" \'1\')', replication => 'database', connstr => $a->dsn(user => 'replicator'));
like($refused->{all}, qr/ERROR/, 'a role with REPLICATION that belongs to no node gets an error') or diag($refused->{all});
unlike($refused->{all}, qr/INSERT|table public/, 'and no rows');
$a->sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'stranger'");

# ---- nothing is shown ----

for my $node ($a, $b)
{
	for my $view (split /\n/, $node->sql("SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace AND relkind = 'v'"))
	{
		unlike($node->sql("SELECT x::text FROM $view x"), qr/$needle/, "$view of " . $node->name . ' shows no password') ;
	}
	like($node->sql('SELECT interface_connstr FROM bdr.node_summary'), qr/sslpassword='?\*+/, 'but that there is one for the key');
	my @lines;
	my $typed = 0;
	for my $line (split /\n/, $node->log_since(0))
	{
		# what people type is logged by the server, as they have asked for with log_statement
		$typed = $line =~ /(?:statement|STATEMENT):/ && $line !~ /internal_peer_call/ unless $line =~ /^\t/;
		push @lines, $line if $line =~ /$needle/ && !$typed;
	}
	ok(!@lines, 'no message in the log of ' . $node->name . ' shows one') or diag(join "\n", splice(@lines, 0, 10));
}

# ---- the end ----

as($a, "SELECT bdr.part_node('node_b')");
$a->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_b'", 'PARTED', 'a node is parted');
as($a, "SELECT bdr.drop_node('node_b')");
as($b, "SELECT bdr.drop_node('node_b', force := true)");
$a->value_ok("SELECT count(*) FROM bdr.node WHERE node_name = 'node_b'", '0', 'and dropped');
logs_ok($a, $b);
done_testing();
