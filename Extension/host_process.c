/*
 * host_process.c: waiting on the latch, and running programs of this server's installation (pg_dump, pg_restore).
 */
#include "bdr.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libpq-fe.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

extern char **environ;

/* Interrupts, and a changed configuration. Call inside the boundary. */
void
bdr_process_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

int32_t
bdr_host_wait(BdrConn *conn, int64_t timeout_ms)
{
	volatile int32_t happened = 0;

	HOST_BEGIN();
	{
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
		int			rc;
		PGconn	   *socket_owner = bdr_conn_libpq(conn);
		pgsocket	fd = socket_owner ? PQsocket(socket_owner) : PGINVALID_SOCKET;

		bdr_wake_wal_writer();
		bdr_process_interrupts();
		if (bdr_shutdown_requested())
			happened = BDR_WAIT_SHUTDOWN;
		else
		{
			if (timeout_ms >= 0)
				events |= WL_TIMEOUT;
			if (fd != PGINVALID_SOCKET)
				rc = WaitLatchOrSocket(MyLatch, events | WL_SOCKET_READABLE, fd, (long) timeout_ms, PG_WAIT_EXTENSION);
			else
				rc = WaitLatch(MyLatch, events, (long) timeout_ms, PG_WAIT_EXTENSION);
			if (rc & WL_LATCH_SET)
			{
				ResetLatch(MyLatch);
				happened |= BDR_WAIT_LATCH;
			}
			if (rc & WL_SOCKET_READABLE)
				happened |= BDR_WAIT_SOCKET;
			if (rc & WL_TIMEOUT)
				happened |= BDR_WAIT_TIMEOUT;
			bdr_process_interrupts();
			if (bdr_shutdown_requested())
				happened |= BDR_WAIT_SHUTDOWN;
		}
	}
	HOST_END();
	return happened;
}

char *
bdr_host_copy_text(const char *text)
{
	return strdup(text);
}

void
bdr_host_free(void *memory)
{
	free(memory);
}

int32_t
bdr_host_temp_path(const char *suffix, char *buffer, size_t size)
{
	static uint32 counter = 0;

	HOST_BEGIN();
	{
		char		directory[MAXPGPATH];

		/* the name makes the server's start-up remove it if we are killed */
		snprintf(directory, sizeof(directory), "%s/base/%s", DataDir, PG_TEMP_FILES_DIR);
		if (mkdir(directory, S_IRWXU) != 0 && errno != EEXIST)
			ereport(ERROR,
					(errcode_for_file_access(), errmsg("could not create directory \"%s\": %m", directory)));
		if ((size_t) snprintf(buffer, size, "%s/%sbdr%d.%u.%s", directory, PG_TEMP_FILE_PREFIX, MyProcPid, counter++,
							  suffix) >= size)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("path of a temporary file is too long")));
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_write_file(const char *path, const char *text)
{
	HOST_BEGIN();
	{
		size_t		length = strlen(text);
		int			fd = open(path, O_WRONLY | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR);
		bool		written = fd >= 0 && write(fd, text, length) == (ssize_t) length;

		if (fd >= 0 && close(fd) != 0)
			written = false;
		if (!written)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not write file \"%s\": %m", path)));
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_remove_file(const char *path)
{
	HOST_BEGIN();
	if (unlink(path) != 0 && errno != ENOENT)
		ereport(WARNING, (errcode_for_file_access(), errmsg("could not remove file \"%s\": %m", path)));
	HOST_END();
	return BDR_OK;
}

/* The last bytes of a program's output, enough to show why it failed. */
static char *
TailOfFile(const char *path)
{
	enum {TAIL = 8192};
	int			fd = open(path, O_RDONLY);
	struct stat st;
	char	   *tail = malloc(TAIL + 1);
	ssize_t		n = 0;

	if (tail && fd >= 0 && fstat(fd, &st) == 0)
	{
		off_t		start = st.st_size > TAIL ? st.st_size - TAIL : 0;

		n = pread(fd, tail, TAIL, start);
	}
	if (fd >= 0)
		close(fd);
	if (tail)
		tail[n > 0 ? n : 0] = '\0';
	return tail;
}

int32_t
bdr_host_run_program(const char *program, const char *const *argv, const char *const *environment, char **output)
{
	char		log_path[MAXPGPATH];
	char		path[MAXPGPATH];
	volatile pid_t pid = 0;
	volatile int32_t status = 0;

	*output = NULL;
	if (bdr_host_temp_path("log", log_path, sizeof(log_path)) != BDR_OK)
		return BDR_HOST_ERROR;
	HOST_BEGIN();
	PG_TRY();
	{
		char	   *slash;
		int			count = 0,
					extra = 0,
					rc,
					wait_status;
		char	  **merged;
		pid_t		child;
		posix_spawn_file_actions_t actions;
		posix_spawnattr_t attributes;
		sigset_t	none,
					defaults;

		/* our own installation's program: its version matches this server's */
		strlcpy(path, my_exec_path, sizeof(path));
		slash = strrchr(path, '/');
		if (slash == NULL)
			elog(ERROR, "could not find the directory of \"%s\"", my_exec_path);
		strlcpy(slash + 1, program, sizeof(path) - (slash + 1 - path));
		if (access(path, X_OK) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("program \"%s\" is needed but was not found beside this server's own binaries", program),
					 errdetail("\"%s\": %m", path),
					 errhint("Install the client programs of this PostgreSQL version on the server (Debian: postgresql-client-%d).",
							 PG_VERSION_NUM / 10000)));

		for (char **e = environ; e && *e; e++)
			count++;
		for (const char *const *e = environment; e && *e; e++)
			extra++;
		merged = palloc(sizeof(char *) * (count + extra + 1));
		/* ours first: getenv finds the first */
		for (int i = 0; i < extra; i++)
			merged[i] = (char *) environment[i];
		for (int i = 0; i < count; i++)
			merged[extra + i] = environ[i];
		merged[count + extra] = NULL;

		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
		posix_spawn_file_actions_addopen(&actions, 1, log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
		posix_spawn_file_actions_adddup2(&actions, 1, 2);
		posix_spawnattr_init(&attributes);
		sigemptyset(&none);
		sigfillset(&defaults);
		sigdelset(&defaults, SIGKILL);
		sigdelset(&defaults, SIGSTOP);
		posix_spawnattr_setsigmask(&attributes, &none);
		posix_spawnattr_setsigdefault(&attributes, &defaults);
		posix_spawnattr_setpgroup(&attributes, 0);
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
		rc = posix_spawn(&child, path, &actions, &attributes, (char *const *) argv, merged);
		posix_spawn_file_actions_destroy(&actions);
		posix_spawnattr_destroy(&attributes);
		pfree(merged);
		if (rc != 0)
		{
			errno = rc;
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not start \"%s\": %m", path)));
		}
		pid = child;
		for (;;)
		{
			pid_t		done = waitpid(child, &wait_status, WNOHANG);

			if (done == child)
				break;
			if (done < 0 && errno != EINTR)
				ereport(ERROR, (errcode_for_file_access(), errmsg("could not wait for \"%s\": %m", path)));
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			bdr_process_interrupts();
		}
		pid = 0;
		if (WIFEXITED(wait_status))
			status = WEXITSTATUS(wait_status);
		else
			status = 256 + (WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0);
		*output = TailOfFile(log_path);
		unlink(log_path);
	}
	PG_CATCH();
	{
		/* cancelled: the program must not go on writing into this database */
		if (pid > 0)
		{
			kill(pid, SIGTERM);
			(void) waitpid(pid, NULL, 0);
		}
		unlink(log_path);
		PG_RE_THROW();
	}
	PG_END_TRY();
	HOST_END();
	return status;
}
