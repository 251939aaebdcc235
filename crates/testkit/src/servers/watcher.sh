# Stops a server and removes its folder when the process that started it is gone.
#
# Standard input: the server's folder, one line; then it stays open for as long as its owner lives, however that
# ends. "done" means that the owner has cleaned up itself. ./test feeds it the folders that a run left behind.
trap '' HUP INT QUIT TERM
IFS= read -r folder || exit 0
read -r word
[ "$word" = done ] && exit 0
[ -d "$folder" ] || exit 0
name=${folder##*/}

# As in processes.rs: the command line tells whose they are.
processes() {
  for line in $(grep -lsF -e "$name" /proc/[0-9]*/cmdline); do
    process=${line%/cmdline}
    read -r program < "$process/comm" || continue
    case $program in
      postgres | mariadbd | mysqld) echo "${process#/proc/}" ;;
      ld-linux-x86-64) tr '\0' '\n' < "$line" | grep -qE '/sbin/(mariadbd|mysqld)$' && echo "${process#/proc/}" ;;
    esac
  done 2> /dev/null
}

signal() {
  for id in $(processes); do kill -s "$1" "$id"; done 2> /dev/null
}

postmaster=$(sed -n 1p "$folder/data/postmaster.pid" 2> /dev/null)
signal CONT
# PostgreSQL's immediate shutdown first: it gives back the shared memory.
case " $(processes | tr '\n' ' ') " in *" $postmaster "*) kill -s QUIT "$postmaster" 2> /dev/null ;; esac
tries=60
while [ "$tries" -gt 0 ] && [ -n "$(processes)" ]; do
  sleep 0.05
  tries=$((tries - 1))
done
# Twice: the owner may have died between a fork and the start of the program.
for look in first second; do
  while [ -n "$(processes)" ]; do
    signal KILL
    sleep 0.05
  done
  [ "$look" = second ] || sleep 0.2
done
segment=$(sed -n '7s/^ *[0-9]* *//p' "$folder/data/postmaster.pid" 2> /dev/null)
[ -z "$segment" ] || ipcrm -m "$segment" 2> /dev/null
rm -rf "$folder"
