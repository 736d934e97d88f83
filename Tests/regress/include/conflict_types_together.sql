-- The nodes tell one another what they did while they were apart.
CALL together();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
