-- Node two stops with an error like :message, until :remedy is done there.
SET client_min_messages = notice;
CALL stops_until(:'message', :'remedy');
SET client_min_messages = error;
\i one.sql
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
DELETE FROM bdr.worker_error;
