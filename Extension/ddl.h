/*
 * ddl.h: replication of DDL. ddl_statements.c judges a statement, ddl_capture.c puts it into the WAL, host_ddl.c runs it on
 * another node.
 */
#ifndef BDR_DDL_H
#define BDR_DDL_H

#include "bdr.h"

#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "tcop/utility.h"

#define BDR_DDL_PREFIX "bdr.ddl"

typedef enum BdrDdlKind
{
	BDR_DDL_LOCAL,				/* concerns this node alone */
	BDR_DDL_TEXT,				/* other nodes run the same text */
	BDR_DDL_TABLE_AS			/* other nodes create the table; its rows go there as rows */
} BdrDdlKind;

typedef struct BdrDdlPlan
{
	BdrDdlKind	kind;
	bool		of_role;		/* concerns roles, which belong to the server */
	bool		after;			/* known only afterwards whether it is replicated */
	RangeVar   *table;			/* is being made, and should have a key */
	RangeVar   *view;			/* becomes temporary when what it reads is */
	bool		uses_temporary;	/* has a temporary type in it */
	bool		may_use_temporary;	/* the text means the same on other nodes all the same */
	IntoClause *into;			/* of BDR_DDL_TABLE_AS */
	List	   *dml_locked;		/* OIDs of relations whose rows must not change meanwhile */
	const char *fill;			/* the step of a statement that fills columns, or NULL */
} BdrDdlPlan;

/* ddl_statements.c. enforce: raises ERROR if the statement should be replicated and can't be. */
extern void bdr_ddl_judge(Node *statement, const char *query, bool enforce, BdrDdlPlan *plan);
/* The relation that an object is, or is a part of, by the node that the parser has for it in DROP, COMMENT and the like; NULL if
 * it is not named. False for other objects. */
extern bool bdr_object_relation(ObjectType type, Node *object, RangeVar **relation);

/* ddl_capture.c */
typedef struct BdrDdlFrame
{
	struct BdrDdlFrame *outer;
	BdrDdlPlan	plan;
	bool		captures;
	bool		table_seen;		/* BDR_DDL_TABLE_AS: the table is there */
	char	   *text;
	const char *tag;
	List	   *deferred;		/* contents of nested statements, to follow this one */
	int			temp_flag;
} BdrDdlFrame;
extern bool bdr_ddl_replication;
extern bool bdr_role_replication;
extern void bdr_ddl_init(void);
extern void bdr_ddl_define_settings(void);
/* Around a utility statement; end is not called after an error, pop is called in any case. */
extern void bdr_ddl_begin(BdrDdlFrame *frame, PlannedStmt *planned, const char *query, ProcessUtilityContext context);
extern void bdr_ddl_end(BdrDdlFrame *frame);
extern void bdr_ddl_pop(BdrDdlFrame *frame);
/* When all is done to a new table that is done to it: warns if it has no key. */
extern void bdr_ddl_warn(const BdrDdlFrame *frame);
/* bdr.replicate_ddl_command: runs statements, which are sent whatever bdr.ddl_replication says. sets: ended by NULL, or NULL;
 * locking: a value of bdr.ddl_locking for these, or NULL. */
extern void bdr_ddl_run(const char *commands, const char *const *sets, const char *locking, bool here);
/* Settings that a text's meaning depends on; ended by NULL. */
extern const char *const bdr_ddl_settings[];
/* Those that say what is done to new objects: name and what does nothing, in pairs, ended by NULL. */
extern const char *const bdr_ddl_creation_settings[];
/* Names this server among those of a group, also when another one was made as a copy of it. */
extern char *bdr_ddl_server(void);
/* For functions of ours that act like DDL: has other nodes run a statement, which may be a SELECT of such a function, as the user
 * and with the settings of this session. To be called before, or in the middle of, what is done here; takes the DDL lock, and with
 * a relation its DML lock. Does nothing where DDL would not be replicated; true if the statement was sent. */
extern bool bdr_ddl_replicate(const char *tag, const char *statement, Oid relation);
/* The same in two steps, where it takes some work to know what the others are to do: locks, and whether to send. relation: what it
 * is about, or InvalidOid; table: whose rows must not change meanwhile, or InvalidOid. */
extern bool bdr_ddl_announce(const char *tag, Oid relation, Oid table);
extern void bdr_ddl_send(const char *tag, const char *statement);
/* Runs what follows from a statement that was sent: other nodes do it by themselves, so statements in it are not. */
extern void bdr_ddl_quietly(void (*run) (void *), void *argument);
/* Whether a statement of another node is running: the settings of new objects are those of the message. */
extern bool bdr_ddl_applying;

/* trigger_rights.c: runs a statement with the rights that it needs; raises ERROR if it makes a trigger that must not be. */
extern void bdr_with_trigger_rights(Node *statement, void (*run) (const void *), const void *argument);
/* Raises ERROR unless a function may run as the owner of a table because the current user wants it to. */
extern void bdr_check_trigger_function(Oid table, Oid function);
extern void bdr_ddl_write(const char *content, Size length);

/* ddl_fill.c: ADD COLUMN whose values come from one node. The step that a message is about is told as a setting. */
#define BDR_DDL_FILL "bdr.fill"
#define BDR_FILL_COLUMNS "columns"
#define BDR_FILL_CONSTRAINTS "constraints"
/* The type of a serial one, or InvalidOid. */
extern Oid	bdr_fill_serial(const TypeName *type);
/* Whether the second step knows how to add the constraints of a column. */
extern bool bdr_fill_can(const ColumnDef *column);
/* How many defaults a column has. */
extern int	bdr_fill_defaults(const ColumnDef *column);
extern List *bdr_fill_statements(Node *statement, const char *step);
extern void bdr_fill_run(List *statements, const char *query, QueryEnvironment *environment);
/* Runs a statement whose message, for the first step, is written. */
extern void bdr_fill(BdrDdlFrame *frame, PlannedStmt *planned, const char *query, QueryEnvironment *environment);
/* Writes the message of the second step. */
extern void bdr_ddl_fill_constraints(BdrDdlFrame *frame);

#endif
