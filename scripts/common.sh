# common.sh: what the scripts share. Sourced with the top of the checkout as the working directory.

# Not every shell that starts us has a locale; servers and tests want UTF-8 and messages in English.
export LANG=C.UTF-8
unset LC_ALL LANGUAGE

PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
BUILD=${BUILD:-.build}
server_user=${BDR_SERVER_USER:-postgres}

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Servers refuse to run as root: runs a command as the server user when we are root, else as ourselves. It gets our
# environment less HOME and PG… (a PGHOST or PGSERVICE of the caller must not lead it elsewhere).
as_server_user() {
    local clean=(env)
    local name
    for name in $(compgen -e PG); do
        case $name in PG_CONFIG | PG_TEST_* | PG_REGRESS) ;; *) clean+=(-u "$name") ;; esac
    done
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u "$server_user" -- "${clean[@]}" HOME="${work:-/tmp}" USER="$server_user" LOGNAME="$server_user" "$@"
    else
        "${clean[@]}" "$@"
    fi
}

# A new scratch folder that the server user owns; short, because socket paths are limited to 107 bytes.
make_scratch() {
    local dir
    dir=$(mktemp -d "/tmp/$1.XXXXXX")
    chmod 755 "$dir"
    if [ "$(id -u)" -eq 0 ]; then
        chown "$server_user": "$dir"
    fi
    echo "$dir"
}

# private_install DIR: a copy of the server of PG_CONFIG in DIR with the built extension in it. PostgreSQL finds its
# libraries and shared files relative to its programs, so the programs are copied and the rest is linked; neither the
# system's installation nor another test run is touched, and no rights are needed. Sets `bindir`.
private_install() {
    local dir=$1 from to kind
    bindir=$dir$("$PG_CONFIG" --bindir)
    for kind in bindir pkglibdir sharedir; do
        from=$("$PG_CONFIG" "--$kind")
        to=$dir$from
        mkdir -p "$to"
        if [ "$kind" = bindir ]; then
            cp -a "$from/." "$to/"
        else
            cp -as "$from/." "$to/"
        fi
    done
    rm -f "$dir$("$PG_CONFIG" --pkglibdir)/bdr.so" "$dir$("$PG_CONFIG" --sharedir)"/extension/bdr{.control,--*.sql}
    make --no-print-directory -s -f Extension/pgxs.mk install DESTDIR="$dir" PG_CONFIG="$PG_CONFIG" BUILD="$BUILD"
    chmod -R a+rX "$dir"
}

# install_bdrctl DIR: the operator's tool, beside the programs of that copy.
install_bdrctl() {
    make --no-print-directory -s -f Extension/pgxs.mk bdrctl PG_CONFIG="$PG_CONFIG" BUILD="$BUILD"
    cp "$BUILD/bdrctl" "$1$("$PG_CONFIG" --bindir)/bdrctl"
    chmod a+rx "$1$("$PG_CONFIG" --bindir)/bdrctl"
}

# Does this server know the list of permitted output plugins? (Minor versions from 2026 on do; setting an unknown name
# would keep older ones from starting.)
knows_plugin_list() { # BINDIR
    [[ $(as_server_user "$1/postgres" --describe-config) == *output_plugin_libraries* ]]
}
