\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
