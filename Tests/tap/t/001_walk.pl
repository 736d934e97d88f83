# The walk of the guides, word for word: existing structure and rows are copied, then INSERT, UPDATE, DELETE and TRUNCATE
# flow both ways.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my $host1 = BDR::Node->create('host1');
my $host2 = BDR::Node->create('host2');
for my $node ($host1, $host2)
{
	$node->sql('CREATE ROLE user1 SUPERUSER LOGIN');
}
my ($dsn1, $dsn2) = map { $_->dsn(user => 'user1') } ($host1, $host2);

# What is there before the group is.
$host1->sql(q{
	CREATE SCHEMA "Zoo Berlin";
	CREATE TYPE diet AS ENUM ('plants', 'meat');
	CREATE TABLE "Zoo Berlin"."Keepers" (id serial PRIMARY KEY, "Full Name" text NOT NULL UNIQUE);
	CREATE TABLE animals (
		id int PRIMARY KEY,
		name text NOT NULL,
		eats diet DEFAULT 'plants',
		weight numeric(8,2) CHECK (weight > 0),
		keeper int REFERENCES "Zoo Berlin"."Keepers",
		born timestamptz DEFAULT now());
	CREATE INDEX animals_name ON animals (lower(name));
	CREATE VIEW heavy AS SELECT * FROM animals WHERE weight > 1000;
	CREATE FUNCTION legs(text) RETURNS int LANGUAGE sql AS $$ SELECT CASE $1 WHEN 'ant' THEN 6 ELSE 4 END $$;
	CREATE MATERIALIZED VIEW names AS SELECT name FROM animals;
	CREATE TABLE no_key (line text);
	COMMENT ON TABLE animals IS 'all of them';
	INSERT INTO "Zoo Berlin"."Keepers" ("Full Name") VALUES ('Ada'), ('Bo'), ('Ğül "the" O''Neil');
	INSERT INTO animals SELECT i, 'animal ' || i, CASE WHEN i % 3 = 0 THEN 'meat'::diet ELSE 'plants' END, i * 1.5, i % 3 + 1
		FROM generate_series(1, 5000) i;
	INSERT INTO no_key VALUES ('one'), ('two'), ('two');
	REFRESH MATERIALIZED VIEW names;
});

# The walk.
$host1->sql('CREATE EXTENSION bdr CASCADE');
$host1->sql("SELECT bdr.create_node(node_name:='initial_node', local_dsn:=@{[quote_literal($dsn1)]})");
$host1->sql("SELECT bdr.create_node_group(node_group_name:='the_node_group')");
$host1->sql('SELECT bdr.wait_for_join_completion()');
$host1->value_ok("SELECT node_name, node_group_name, peer_state_name FROM bdr.local_node_summary",
	'initial_node|the_node_group|ACTIVE', 'the first node is active');

$host2->sql('CREATE EXTENSION bdr CASCADE');
$host2->sql("SELECT bdr.create_node(node_name:='next_node', local_dsn:=@{[quote_literal($dsn2)]})");
$host2->sql("SELECT bdr.join_node_group(join_target_dsn:=@{[quote_literal($dsn1)]}, wait_for_completion:=True)");

for my $node ($host1, $host2)
{
	$node->wait_ok('SELECT node_name, peer_state_name FROM bdr.node_summary ORDER BY 1',
		"initial_node|ACTIVE\nnext_node|ACTIVE", $node->name . ' sees both nodes active');
}
replicating_ok($host1, $host2, 'both subscriptions replicate');

# The copy.
my $tables = q{"Zoo Berlin"."Keepers"};
same_ok($host1, $host2, $_, "copied: $_") for ('animals', $tables, 'no_key', 'heavy', 'names');
$host2->value_ok("SELECT obj_description('animals'::regclass), legs('ant')", 'all of them|6', 'comments and functions came along');
$host2->value_ok("SELECT count(*) FROM pg_indexes WHERE tablename = 'animals'", '2', 'indexes came along');
$host2->value_ok("SELECT count(*) FROM pg_constraint WHERE conrelid = 'animals'::regclass", '3', 'constraints came along');
$host2->value_ok('SELECT count(*) FROM pg_extension WHERE extname = $$bdr$$', '1', 'the extension is there once');
$host2->value_ok('SELECT count(*) FROM animals', '5000', 'no row is there twice');

# Every kind of change, from each side.
my %peer = (host1 => $host2, host2 => $host1);
my $first = 10000;
for my $node ($host1, $host2)
{
	my $peer = $peer{ $node->name };
	my $from = 'from ' . $node->name;
	$node->sql("INSERT INTO animals (id, name, weight) SELECT $first + i, '$from', 1 FROM generate_series(1, 100) i");
	same_ok($node, $peer, 'animals', "INSERT $from");
	$node->sql("UPDATE animals SET weight = weight + 0.25, eats = 'meat' WHERE id > $first AND id <= $first + 50");
	same_ok($node, $peer, 'animals', "UPDATE $from");
	$node->sql("UPDATE animals SET id = id + 500 WHERE id > $first AND id <= $first + 10");
	same_ok($node, $peer, 'animals', "UPDATE of the key $from");
	$node->sql("DELETE FROM animals WHERE id > $first AND id % 2 = 0");
	same_ok($node, $peer, 'animals', "DELETE $from");
	$node->sql("INSERT INTO no_key VALUES ('$from'), (NULL)");
	same_ok($node, $peer, 'no_key', "INSERT into a table without a key $from");
	$node->sql("COPY animals (id, name) FROM STDIN;\n@{[$first + 800]}\tcopied $from\n\\.\n");
	same_ok($node, $peer, 'animals', "COPY $from");
	$node->sql("TRUNCATE no_key; INSERT INTO no_key VALUES ('after truncate $from')");
	same_ok($node, $peer, 'no_key', "TRUNCATE $from");
	$peer->value_ok('SELECT count(*) FROM no_key', '1', "TRUNCATE $from took the old rows");
	$node->sql(qq{TRUNCATE "Zoo Berlin"."Keepers" CASCADE});
	wait_caught_up($node, $peer);
	$peer->value_ok('SELECT count(*) FROM animals', '0', "TRUNCATE CASCADE $from");
	$node->sql(qq{INSERT INTO "Zoo Berlin"."Keepers" (id, "Full Name") VALUES (1, 'Ada'), (2, 'Bo'), (3, 'C');
		INSERT INTO animals SELECT i, 'again ' || i, 'meat', i * 1.5, i % 3 + 1 FROM generate_series(1, 1000) i});
	same_ok($node, $peer, 'animals', "rows after TRUNCATE $from");
	$first += 10000;
}

# Nothing came back as an echo.
$_->value_ok("SELECT count(*) FROM animals WHERE name LIKE 'again%'", '1000', 'no echo on ' . $_->name) for ($host1, $host2);

# The views and functions that say so.
$_->value_ok('SELECT bdr.bdr_version() ~ $$^\d+\.\d+\.\d+$$', 't', 'bdr_version on ' . $_->name) for ($host1, $host2);
for my $node ($host1, $host2)
{
	my $peer_name = $node == $host1 ? 'next_node' : 'initial_node';
	$node->value_ok('SELECT target_name, active, state FROM bdr.node_slots WHERE NOT is_group_slot', "$peer_name|t|streaming",
		'node_slots of ' . $node->name);
	$node->sql("SET statement_timeout = '60s'; SELECT bdr.wait_slot_confirm_lsn()");
	pass('wait_slot_confirm_lsn returns on ' . $node->name);
}
logs_ok($host1, $host2);
done_testing();
