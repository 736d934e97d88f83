\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
