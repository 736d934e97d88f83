-- Stops and starts replication to this node, and waits until it is so.
CREATE PROCEDURE apart() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bdr.alter_subscription_disable();
	COMMIT;
	CALL wait_for('NOT EXISTS (SELECT FROM bdr.workers WHERE worker_role_name = ''apply'')');
END $$;
CREATE PROCEDURE together() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bdr.alter_subscription_enable();
	COMMIT;
	CALL wait_for('EXISTS (SELECT FROM bdr.subscription_summary WHERE subscription_status = ''replicating'')');
END $$;
