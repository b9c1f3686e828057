#!/usr/bin/env bash
# Checks that scripts are formatted, and that those for users keep to what bash 3.2 knows, which is the one of macOS.
#
#   ./deploy/tests/shells.sh
#
# No bash of that age can be had from Debian, so it is looked for what came later. First it is shown that each of these
# would be found.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deploy/lib/say.sh
. deploy/lib/say.sh

# What came with bash 4 and 5: an example, and by what it is found.
later=$(
  cat <<'END'
mapfile -t lines <file                  (^|[^[:alnum:]_-])(mapfile|readarray)([[:space:]]|$)
declare -A table                        (declare|local|typeset|readonly)[[:space:]]+-[[:alpha:]]*[Agnlu]
x=${name^^}                             [$]{[[:alnum:]_@*]+(\[[^]]*\])?[\^,]
x=${name@Q}                             [$]{[[:alnum:]_]+(\[[^]]*\])?@[[:alpha:]]}
wait -n                                 (^|[^[:alnum:]_-])wait[[:space:]]+-
program |& cat                          [|]&
program &>>file                         &>>
case x in x) ;;& esac                   ;;?&([[:space:]]|$)
shopt -s globstar                       shopt.*(globstar|lastpipe|inherit_errexit|autocd|dirspell)
coproc program                          (^|[;&|[:space:]])coproc[[:space:]]
printf '%(%s)T' -1                      printf[[:space:]].*%\([^)]*\)T
x=${list[-1]}                           [$]{[[:alnum:]_]+\[-[0-9]
x=${text: -3:-1}                        [$]{[[:alnum:]_]+:[^}]*:[[:space:]]*-[0-9]
[[ -v name ]]                           \[\[?[[:space:]]+(![[:space:]]+)?-[vR][[:space:]]
exec {file}>out                         exec[[:space:]]+[{][[:alnum:]_]+[}][<>]
x=$BASHPID                              [$]{?(BASHPID|EPOCHSECONDS|EPOCHREALTIME|SRANDOM)
x={01..10}                              [{]0[0-9]+[.][.]
read -i text -e name                    read[[:space:]]+(-[[:alnum:]]+[[:space:]]+)*-[[:alpha:]]*[iN]
printf %s $'\u00e9'                     [$]'[^']*\\[uU]
END
)

# found_in FILE…: prints the lines with something that bash 3.2 does not know; comments do not count.
found_in() {
  local pattern
  while IFS= read -r pattern; do
    pattern=$(printf '%s' "$pattern" | sed 's/^.\{40\}//')
    grep -nHE -e "$pattern" "$@" | grep -vE '^[^:]*:[0-9]+:[[:space:]]*#' || true
  done <<<"$later"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
while IFS= read -r line; do
  printf '%s\n' "${line:0:40}" >"$scratch/example.sh"
  [ -n "$(found_in "$scratch/example.sh")" ] || fail "this test would not find: ${line:0:40}"
done <<<"$later"

scripts=()
portable=()
while IFS= read -r script; do
  scripts+=("$script")
  case $script in
    # Machines of tests are Linux's, and so are brokers' machines.
    deploy/tests/* | deploy/docker/*) ;;
    *) portable+=("$script") ;;
  esac
done < <(git ls-files '*.sh' .ci/run)
[ ${#portable[@]} -gt 15 ] || fail "only ${#portable[@]} scripts are found; run this in a checkout"

said=$(found_in "${portable[@]}")
[ -z "$said" ] || fail "bash 3.2, which macOS has, does not know: $said"
for script in "${scripts[@]}"; do
  bash -n "$script" || fail "$script is not bash"
done
shfmt -i 2 -ci -d "${scripts[@]}" || fail "scripts are not formatted; run: shfmt -i 2 -ci -w SCRIPT"
say "ok: ${#scripts[@]} scripts are formatted, and ${#portable[@]} keep to bash 3.2"
