# Ends what the process at the other end of standard input has left, however that process ended.
#
# Standard input: "+ PID" for a child that runs now, "- PID" for one that has ended, "keep" when
# the files are wanted, "cgroup NAME" for control groups that go as well, "undo FILE" for a script that is
# run if it is still there. End of file means that the process is gone, be it by SIGKILL.
# $1 is the directory that goes with it.
trap '' HUP INT TERM
live=' ' keep='' cgroup='' undo=''
while read -r order pid; do
    case $order in
    +) live="$live$pid " ;;
    -) live="${live%% $pid *} ${live#* $pid }" ;;
    keep) keep=yes ;;
    cgroup) cgroup=$pid ;;
    undo) undo=$pid ;;
    esac
done
for pid in $live; do
    kill -9 "$pid"
done
[ ! -f "$undo" ] || sh "$undo"
# A group can be removed once the last process in it is gone.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -n "$cgroup" ] || break
    left=$(find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" 2>/dev/null)
    [ -n "$left" ] || break
    printf '%s\n' "$left" | xargs rmdir
    sleep 0.1
done
[ -z "$keep" ] || exit 0
# A child may be inside one last system call that makes a file: try again while it dies.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    rm -rf -- "$1" && [ ! -e "$1" ] && exit 0
    sleep 0.1
done
