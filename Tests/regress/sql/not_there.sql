-- Names that tools ask for which know BDR: those with a meaning here answer; the others say that they are not there, and what to do.

SELECT set_name, replicate_insert, replicate_update, replicate_delete, replicate_truncate, set_autoadd_tables FROM bdr.replication_sets;
SELECT * FROM bdr.node_group_replication_sets;
SELECT node_group_name, node_group_type, active_nodes FROM bdr.node_group_summary;
SELECT count(*) FROM bdr.get_global_locks();
SELECT * FROM bdr.get_raft_status();
SELECT * FROM bdr.get_consensus_status();
SELECT node_name, state, leader_id, nodes, voting_nodes, error FROM bdr.group_raft_details ORDER BY 1;
SELECT node_name, is_camo_partner_connected FROM bdr.group_camo_details ORDER BY 1;
SELECT pid > 0 AS has_pid, is_using_lcr FROM bdr.wal_sender_stats();
SELECT * FROM bdr.get_decoding_worker_stat();
SELECT bdr.move_group_slot_all_nodes();
SELECT * FROM bdr.bdr_features() WHERE NOT available ORDER BY 1;
-- What is so already may be said.
SELECT bdr.alter_node_group_config('the_group');
SELECT bdr.alter_node_group_config('the_group', insert_to_update := true, ignore_redundant_updates := false, apply_delay := '0', num_writers := -1);
SELECT bdr.alter_node_group_config('the_group', num_writers := 4);
SELECT bdr.alter_node_group_config('the_group', apply_delay := '1 hour');
SELECT bdr.alter_node_group_config('other');
SELECT bdr.alter_node_group_option('the_group', 'num_writers', '-1');
SELECT bdr.alter_node_group_option('the_group', 'enable_wal_decoder', 'on');
SELECT bdr.alter_node_group_option('the_group', 'location', 'here');
-- Each that is not there, called as it may be called; with its hint.
CREATE FUNCTION refusal(function regprocedure, OUT state text, OUT message text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT bdr.%I(%s)', (SELECT proname FROM pg_proc WHERE oid = function),
		(SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n) FROM pg_proc p, unnest(proargtypes) WITH ORDINALITY a(t, n) WHERE p.oid = function));
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END $$;
SELECT r.state, r.message, r.hint, string_agg(p.proname, ' ' ORDER BY proname COLLATE "C") AS functions
	FROM pg_proc p, refusal(p.oid) r WHERE pronamespace = 'bdr'::regnamespace AND obj_description(p.oid, 'pg_proc') ~ '^refused: ' GROUP BY 1, 2, 3 ORDER BY 2;
SELECT bdr.create_replication_set('audit');
DROP FUNCTION refusal;
