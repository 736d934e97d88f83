-- A third node joins through the second, replicates with both, and is parted.

SELECT format('host=%s dbname=', current_setting('unix_socket_directories')) AS server \gset
CREATE TABLE parting (id int PRIMARY KEY, v text);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
INSERT INTO parting VALUES (1, 'before');
SELECT bdr.wait_slot_confirm_lsn();
CREATE DATABASE node3;
\c node3
CREATE EXTENSION bdr CASCADE;
SET client_min_messages = warning;
SELECT bdr.create_node('three', :'server' || 'node3 user=regress');
RESET client_min_messages;
SELECT bdr.join_node_group(:'server' || 'node2 user=regress', 'the_group', wait_for_completion := false);
SELECT bdr.wait_for_join_completion(verbose_progress := false);
SELECT node_name, peer_state_name, node_seq_id, node_id FROM bdr.node_summary ORDER BY node_id;
SELECT sub_name, origin_name, target_name, sub_slot_name, sub_origin_name FROM bdr.subscription_summary ORDER BY 1;
SELECT * FROM parting;
INSERT INTO parting VALUES (3, 'from three');
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT node_name, peer_state_name, node_seq_id, node_id FROM bdr.node_summary ORDER BY node_id;
SELECT sub_name, origin_name, target_name, sub_slot_name, sub_origin_name FROM bdr.subscription_summary ORDER BY 1;
SELECT slot_name, target_name FROM bdr.node_slots WHERE NOT is_group_slot ORDER BY 1;
SELECT * FROM parting ORDER BY id;
INSERT INTO parting VALUES (4, 'from one');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM parting ORDER BY id;
UPDATE parting SET v = v || ', changed on two';
SELECT bdr.wait_slot_confirm_lsn();
SELECT md5(string_agg(parting::text, ',' ORDER BY id)) AS content FROM parting \gset two_
\c node1
SELECT md5(string_agg(parting::text, ',' ORDER BY id)) = :'two_content' AS same FROM parting;
\c node3
SELECT md5(string_agg(parting::text, ',' ORDER BY id)) = :'two_content' AS same FROM parting;
-- what it commits before it is parted arrives
INSERT INTO parting VALUES (5, 'last of three');
\c node1
SELECT bdr.part_node('three');
SELECT * FROM parting WHERE id = 5;
CALL wait_for('NOT EXISTS (SELECT FROM bdr.part_progress)');
SELECT bdr.part_node('three');
SELECT node_name, peer_state_name, peer_target_state_name FROM bdr.node_summary ORDER BY node_id;
SELECT state_name FROM bdr.state_journal_details WHERE node_name = 'three' ORDER BY state_counter DESC LIMIT 3;
SELECT count(*) AS subscriptions FROM bdr.subscription;
SELECT slot_name FROM pg_replication_slots WHERE database IN ('node1', 'node2', 'node3') AND slot_name ~ 'three|node3';
SELECT roname FROM pg_replication_origin WHERE roname ~ 'three';
SELECT bdr.drop_node('three');
SELECT node_name FROM bdr.node_summary ORDER BY 1;
SELECT bdr.drop_node('three');
-- the two go on
INSERT INTO parting VALUES (6, 'after parting');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM parting WHERE id >= 5 ORDER BY id;
SELECT node_name, peer_state_name FROM bdr.node_summary ORDER BY node_id;
-- the parted one keeps its rows, takes no part any more, and can be dropped like any database
\c node3
SELECT node_name, peer_state_name FROM bdr.local_node_summary;
SELECT count(*) AS subscriptions FROM bdr.subscription;
SELECT id FROM parting ORDER BY id;
SELECT bdr.drop_node('three');
SELECT count(*) AS nodes FROM bdr.node;
DROP TABLE parting;
\c node2
DROP TABLE parting;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT to_regclass('parting') IS NULL AS is_gone;
DROP DATABASE node3;
