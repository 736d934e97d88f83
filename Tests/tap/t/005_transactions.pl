# Transactions arrive whole, in order and once: large ones beyond the memory for decoding, subtransactions and their
# rollbacks, prepared transactions, DDL in the middle, savepoints by the thousand.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(
	conf => "bdr.decoding_work_mem = '64kB'\nmax_prepared_transactions = 10",
	setup => q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE swap (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE log (n serial PRIMARY KEY, v int, xid xid DEFAULT pg_current_xact_id()::xid, at timestamptz DEFAULT now());
	});

# Large: 200,000 rows in one transaction, then changed and deleted in one each.
$a->sql("INSERT INTO t SELECT i, repeat('x', i % 100) FROM generate_series(1, 200000) i");
same_ok($a, $b, 't', 'INSERT of 200,000 rows in one transaction');
$a->sql("UPDATE t SET v = v || 'y' WHERE id % 2 = 0");
same_ok($a, $b, 't', 'UPDATE of 100,000 rows in one transaction');
$b->sql('DELETE FROM t WHERE id > 1000');
same_ok($a, $b, 't', 'DELETE of 199,000 rows in one transaction, from the other side');
$a->value_ok('SELECT count(*) FROM t', '1000', 'the right rows are left');

# Whole: a reader on the peer never sees part of a transaction.
$a->sql('CREATE TABLE IF NOT EXISTS local_only (a int)');
{
	my $seen = '';
	$a->sql("INSERT INTO log (v) SELECT i FROM generate_series(1, 3000) i") for 1 .. 5;
	my $total = 15000;
	wait_until(sub {
		my $count = $b->sql('SELECT count(*) FROM log');
		$seen .= "$count " if $count % 3000 != 0;
		return $count == $total;
	});
	is($seen, '', 'no part of a transaction was ever visible');
	same_ok($a, $b, 'log', 'all transactions arrived');
}

# Subtransactions.
$a->sql(q{
	BEGIN;
	INSERT INTO t VALUES (2001, 'kept');
	SAVEPOINT s1; INSERT INTO t VALUES (2002, 'rolled back'); UPDATE t SET v = 'no' WHERE id = 1; ROLLBACK TO s1;
	SAVEPOINT s2; INSERT INTO t VALUES (2003, 'kept'); SAVEPOINT s3; DELETE FROM t WHERE id = 2; RELEASE s3; RELEASE s2;
	SAVEPOINT s4; TRUNCATE log; ROLLBACK TO s4;
	UPDATE t SET v = v || ' twice' WHERE id = 2003;
	COMMIT;
});
same_ok($a, $b, 't', 'savepoints, released and rolled back');
same_ok($a, $b, 'log', 'a TRUNCATE that was rolled back');
$a->sql(q{
	DO $$
	BEGIN
		FOR i IN 3001..8000 LOOP
			BEGIN
				INSERT INTO t VALUES (i, 'sub');
				IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
		END LOOP;
	END $$;
});
same_ok($a, $b, 't', '5,000 subtransactions of which a third are rolled back');
$b->sql(q{BEGIN; INSERT INTO t VALUES (9001, 'never'); ROLLBACK;});
$b->psql($b->db, q{BEGIN; INSERT INTO t VALUES (9002, 'never'); SELECT 1/0; COMMIT;});
same_ok($a, $b, 't', 'rolled back transactions');
$a->value_ok('SELECT count(*) FROM t WHERE id > 9000', '0', 'sent nothing');

# Prepared transactions.
$a->sql(q{
	BEGIN; INSERT INTO t VALUES (10001, 'prepared'); UPDATE t SET v = 'prepared' WHERE id = 3; PREPARE TRANSACTION 'one';
	BEGIN; INSERT INTO t VALUES (10002, 'to be rolled back'); PREPARE TRANSACTION 'two';
	INSERT INTO t VALUES (10003, 'between');
});
wait_caught_up($a, $b);
$b->value_ok('SELECT string_agg(id::text, $$,$$) FROM t WHERE id > 10000', '10003', 'a prepared transaction is not seen by the peer');
$a->sql("COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two'");
same_ok($a, $b, 't', 'COMMIT PREPARED and ROLLBACK PREPARED');
$a->sql(q{BEGIN; INSERT INTO t VALUES (10004, 'over a restart'); PREPARE TRANSACTION 'three';});
$a->restart;
$a->sql("COMMIT PREPARED 'three'");
same_ok($a, $b, 't', 'a prepared transaction that outlived a restart');

# DDL and rewrites of the same transaction.
$a->sql(q{
	BEGIN;
	INSERT INTO t VALUES (11001, 'before');
	CREATE TEMP TABLE helper AS SELECT * FROM t;
	CREATE INDEX ON local_only (a);
	ALTER TABLE local_only ADD b int DEFAULT 5;
	ALTER TABLE local_only ALTER a TYPE bigint;
	INSERT INTO t VALUES (11002, 'after');
	COMMIT;
	VACUUM FULL t;
	UPDATE t SET v = 'after VACUUM FULL' WHERE id = 11001;
});
same_ok($a, $b, 't', 'DDL between changes of one transaction, and a rewritten table');
$a->sql(q{
	BEGIN; UPDATE t SET v = 'before the rewrite' WHERE id = 11001; ALTER TABLE t ALTER v TYPE varchar; UPDATE t SET v = v || '!' WHERE id = 11001; COMMIT;
});
same_ok($a, $b, 't', 'a rewrite of the changed table within the transaction');

# Order across tables and deferred constraints.
$a->sql(q{
	BEGIN; INSERT INTO child VALUES (1, 1); INSERT INTO parent VALUES (1); COMMIT;
	INSERT INTO swap VALUES (1, 1), (2, 2);
	UPDATE swap SET u = 3 - u;
	BEGIN; INSERT INTO parent VALUES (2); INSERT INTO child VALUES (2, 2); UPDATE child SET parent = 1; DELETE FROM parent WHERE id = 2; COMMIT;
});
same_ok($a, $b, $_, "order is kept: $_") for qw(parent child swap);

# The same row again and again in one transaction is no conflict with itself.
$a->sql(q{
	BEGIN; INSERT INTO t VALUES (12001, '0'); UPDATE t SET v = '1' WHERE id = 12001; UPDATE t SET v = '2' WHERE id = 12001;
	UPDATE t SET id = 12002 WHERE id = 12001; DELETE FROM t WHERE id = 12002; INSERT INTO t VALUES (12002, '3'); UPDATE t SET v = '4' WHERE id = 12002; COMMIT;
	BEGIN; UPDATE t SET id = -id WHERE id IN (4, 5); UPDATE t SET id = CASE id WHEN -4 THEN 5 ELSE 4 END WHERE id IN (-4, -5); COMMIT;
});
same_ok($a, $b, 't', 'one row changed many times in one transaction, and two keys swapped');

# Commit times travel.
$a->sql("INSERT INTO t VALUES (13001, 'time')");
wait_caught_up($a, $b);
same_rows($a, $b, 'SELECT pg_xact_commit_timestamp(xmin) FROM t WHERE id = 13001', 'the commit time is the origin\'s');

logs_ok($a, $b);
done_testing();
