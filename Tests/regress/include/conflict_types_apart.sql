-- All steps, in :relation, while the nodes are apart.
\c node2
CALL run('two 0', :'relation');
SELECT bdr.wait_slot_confirm_lsn();
CALL apart();
\c node1
CALL apart();
CALL run('one 0', :'relation');
\c node2
CALL run('two 1', :'relation');
\c node1
CALL run('one 2 forgets', :'relation');
CALL run('one 2', :'relation');
\c node2
CALL run('two 3', :'relation');
\c node1
