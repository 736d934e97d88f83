-- Who may create triggers on tables of others, on all nodes alike.

SET client_min_messages = error;
CREATE ROLE regress_owner;
CREATE ROLE regress_guest IN ROLE bdr_application;
CREATE ROLE regress_admin IN ROLE bdr_superuser;
CREATE SCHEMA rights AUTHORIZATION regress_owner;
GRANT USAGE, CREATE ON SCHEMA rights TO regress_guest, regress_admin;
-- names in it are found by "$user"
CREATE SCHEMA regress_admin AUTHORIZATION regress_admin;
SET ROLE regress_owner;
CREATE TABLE rights.t (id int PRIMARY KEY, who text);
ALTER TABLE rights.t REPLICA IDENTITY FULL;
CREATE FUNCTION rights.by_owner() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.who := concat(NEW.who, ' owner'); RETURN NEW; END $$;
GRANT TRIGGER, INSERT ON rights.t TO regress_guest;
SET ROLE regress_guest;
CREATE FUNCTION rights.by_guest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.who := concat(NEW.who, ' guest'); RETURN NEW; END $$;
CREATE FUNCTION rights.by_definer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN NEW.who := concat(NEW.who, ' ', current_user); RETURN NEW; END $$;
-- who has the right on the table
CREATE TRIGGER a BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_guest();
CREATE OR REPLACE TRIGGER a BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_guest();
CREATE TRIGGER b BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_owner();
CREATE TRIGGER c BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_definer();
SELECT bdr.create_conflict_trigger('s', '{INSERT}', 'rights.t', 'rights.by_guest()');
-- not on what does not concern other nodes
CREATE TEMP TABLE own (id int, who text);
CREATE TRIGGER a BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION rights.by_guest();
DROP TABLE own;
-- bdr_superuser: on any table, with a function that may be executed; names mean what they mean to who types them
SET ROLE regress_admin;
CREATE FUNCTION regress_admin.by_admin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.who := concat(NEW.who, ' admin'); RETURN NEW; END $$;
SET search_path = "$user", rights;
CREATE TRIGGER d BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION by_admin();
GRANT USAGE ON SCHEMA regress_admin TO regress_owner;
CREATE TRIGGER d BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION by_admin();
SELECT current_user, current_setting('search_path');
RESET search_path;
SELECT bdr.create_transform_trigger('s', '{DELETE}', 'rights.t', 'rights.by_guest()');
CREATE TRIGGER d BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_owner();
SELECT current_user;
DROP TRIGGER d ON rights.t;
SET ROLE regress_owner;
REVOKE EXECUTE ON FUNCTION rights.by_owner() FROM PUBLIC;
SET ROLE regress_admin;
CREATE TRIGGER e BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_owner();
-- somebody else has nothing
RESET ROLE;
CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA rights TO regress_nobody;
SET ROLE regress_nobody;
CREATE TRIGGER e BEFORE INSERT ON rights.t FOR EACH ROW EXECUTE FUNCTION rights.by_definer();
RESET ROLE;
INSERT INTO rights.t VALUES (1);
SELECT * FROM rights.t;
SELECT tgname, tgfoid::regproc FROM pg_trigger WHERE tgrelid = 'rights.t'::regclass ORDER BY 1;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT tgname, tgfoid::regproc FROM pg_trigger WHERE tgrelid = 'rights.t'::regclass ORDER BY 1;
SELECT * FROM rights.t;
\c node1
SET client_min_messages = error;
DROP SCHEMA rights, regress_admin CASCADE;
DROP ROLE regress_owner, regress_guest, regress_nobody, regress_admin;
SELECT bdr.wait_slot_confirm_lsn();
