#!/usr/bin/env bash
# Redis and RabbitMQ for the tests, and for trying the server with them: on the loopback interface, on separate ports,
# with nothing kept on disk. Services that the system runs on the usual ports are not touched. Once the packages are
# installed, neither systemd nor root is needed.
#
#   scripts/services.sh start    starts them if they are not running; prints the addresses as shell exports
#   scripts/services.sh stop     stops them
#   scripts/services.sh vhost N  creates a virtual host N on that RabbitMQ
#
#   ELEPHANT_SERVICES       folder for their files; all clones share the default one and so the services
#   ELEPHANT_SERVICES_PORT  the first of four ports: Redis, RabbitMQ, and two that RabbitMQ needs for itself
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

folder=$(realpath -m "${ELEPHANT_SERVICES:-$cache/services}")
port=${ELEPHANT_SERVICES_PORT:-28600}
redis_port=$port amqp_port=$((port + 1)) node_port=$((port + 2)) epmd_port=$((port + 3))
rabbitmq=/usr/lib/rabbitmq/bin
# Seconds a service may take to answer, on a slow and busy machine.
patience=120

main() {
    case ${1:-start} in
    start) start ;;
    stop) stop ;;
    vhost) add_vhost "$2" ;;
    *) die "unknown command: $1" "The commands are start, stop and vhost NAME." ;;
    esac
}

start() {
    if ! { redis_runs && rabbitmq_runs; }; then
        install_packages
        take_lock
        redis_runs || start_redis
        rabbitmq_runs || start_rabbitmq
    fi
    cat <<END
export ELEPHANT_TEST_REDIS_URL=redis://127.0.0.1:$redis_port/0
export ELEPHANT_TEST_AMQP_URL=amqp://user:user@127.0.0.1:$amqp_port/%2f
END
}

stop() {
    [ -d "$folder" ] || return 0
    take_lock
    stop_process redis
    stop_process rabbitmq
    # It ends only if no node uses it any more.
    ERL_EPMD_PORT=$epmd_port epmd -kill &>/dev/null || true
}

install_packages() {
    local file=/usr/lib/rabbitmq/bin/rabbitmq-server
    if command -v redis-server >/dev/null && [ -e $file ]; then return; fi
    need_packages redis-server=redis-server $file=rabbitmq-server
    [ ! -d /run/systemd/system ] ||
        say "the packages start services of their own, which are not used here; to disable them:" \
            "sudo systemctl disable --now redis-server rabbitmq-server"
}

# Two checkouts, or two terminals, must not start or stop services at the same time.
take_lock() {
    if ! mkdir -p "$folder" 2>/dev/null || ! [ -w "$folder" ]; then
        die "cannot write to $folder" "Name another one:  ELEPHANT_SERVICES=/some/folder make services"
    fi
    exec 9>"$folder/.lock"
    flock -n 9 || { say "waiting until another run of services.sh has ended" && flock 9; }
}

# ours NAME: whether the process in NAME.pid is alive and was started here (process numbers are reused).
ours() {
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && [ -n "$pid" ] &&
        [ "$(readlink "/proc/$pid/cwd")" = "$folder" ]
}

redis_runs() { ours redis && [ "$(talk "$redis_port" 'PING\r\n' 5)" = +PONG ]; }

# A broker answers the protocol header of AMQP 0-9-1 with a method frame (1, channel 0).
rabbitmq_runs() { ours rabbitmq && [ "$(talk "$amqp_port" 'AMQP\x00\x00\x09\x01' 3 | od -An -tx1)" = ' 01' ]; }

# talk PORT BYTES COUNT: the first COUNT bytes of the reply without zero bytes; nothing if there is no reply.
talk() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        # shellcheck disable=SC2059
        printf "$2" >&3
        timeout 2 head -c "$3" <&3 | tr -d '\0'
    ) 2>/dev/null || true
}

require_free_port() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
    die "port $1 is used by another program" "Choose the first of four other ports:  ELEPHANT_SERVICES_PORT=28700 make services"
}

start_redis() {
    stop_process redis
    require_free_port "$redis_port"
    say "starting Redis on port $redis_port"
    detached redis redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$folder" --databases 16
    wait_for redis_runs redis
}

start_rabbitmq() {
    stop_process rabbitmq
    require_free_port "$amqp_port"
    say "starting RabbitMQ on port $amqp_port (some seconds)"
    # Nothing is kept, so that incomplete files of a killed broker do no harm.
    rm -rf "$folder/rabbitmq"
    mkdir -p "$folder/rabbitmq"
    : >"$folder/rabbitmq/env.conf"
    echo '[].' >"$folder/rabbitmq/plugins"
    cat >"$folder/rabbitmq/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$amqp_port
default_user = user
default_pass = user
disk_free_limit.absolute = 50MB
END
    (
        rabbitmq_environment
        detached rabbitmq "$rabbitmq/rabbitmq-server"
    )
    wait_for rabbitmq_runs rabbitmq
}

rabbitmq_environment() {
    # The node and its port mapper can be reached from this machine only. The cookie is created in HOME.
    export HOME=$folder/rabbitmq RABBITMQ_NODENAME=elephant@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
        RABBITMQ_NODE_PORT=$amqp_port RABBITMQ_DIST_PORT=$node_port ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_MNESIA_BASE=$folder/rabbitmq/mnesia RABBITMQ_LOG_BASE=$folder/rabbitmq/log \
        RABBITMQ_PID_FILE=$folder/rabbitmq/pid RABBITMQ_ENABLED_PLUGINS_FILE=$folder/rabbitmq/plugins \
        RABBITMQ_CONFIG_FILE=$folder/rabbitmq/rabbitmq.conf RABBITMQ_CONF_ENV_FILE=$folder/rabbitmq/env.conf \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}' \
        ERL_CRASH_DUMP=$folder/rabbitmq/erl_crash.dump LC_ALL=C.UTF-8
}

add_vhost() {
    (
        rabbitmq_environment
        # One call instead of two, as each takes seconds.
        "$rabbitmq/rabbitmqctl" -q eval "rabbit_vhost:add(<<\"$1\">>, <<\"services.sh\">>),
            rabbit_auth_backend_internal:set_permissions(<<\"user\">>, <<\"$1\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"services.sh\">>)."
    ) </dev/null >/dev/null || die "cannot create the virtual host $1"
}

# detached NAME COMMAND...: runs the command in a session of its own, with its output in NAME.log and its number in
# NAME.pid.
detached() {
    local name=$1
    shift
    (
        cd "$folder"
        # The service must not inherit the lock taken here or a lock of the caller.
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || eval "exec $fd>&-" 2>/dev/null
        done
        setsid "$@" </dev/null >"$folder/$name.log" 2>&1 &
        echo $! >"$folder/$name.pid"
    )
}

# wait_for TEST NAME
wait_for() {
    local end=$((SECONDS + patience))
    until $1; do
        ours "$2" || fail_with_log "$2" "ended immediately"
        [ $SECONDS -lt $end ] || fail_with_log "$2" "does not answer"
        sleep 0.1
    done
}

fail_with_log() {
    tail -n 20 "$folder/$1.log" "$folder"/"$1"/log/*.log >&2 2>/dev/null || true
    die "$1 $2" "Its log is $folder/$1.log"
}

# stop_process NAME: ends it, by force if it takes too long.
stop_process() {
    local pid end=$((SECONDS + 10))
    ours "$1" || return 0
    pid=$(cat "$folder/$1.pid")
    say "stopping $1"
    # The whole session that `detached` began: RabbitMQ is a shell script with children.
    kill -- "-$pid" 2>/dev/null || kill "$pid" 2>/dev/null || true
    while ours "$1"; do
        [ $SECONDS -lt $end ] || kill -KILL -- "-$pid" 2>/dev/null || true
        sleep 0.1
    done
    rm -f "$folder/$1.pid"
}

main "$@"
