# shellcheck shell=bash
# How the scripts speak: what is done, how far it is, and at the end one sentence if it failed.

step_now=0
step_all=0

# steps N: the script has N steps.
steps() {
  step_all=$1
}

# step TEXT: the next step begins.
step() {
  step_now=$((step_now + 1))
  printf '[%d/%d] %s\n' "$step_now" "$step_all" "$1"
}

# say TEXT: something worth knowing within a step.
say() {
  printf '      %s\n' "$1"
}

# fail TEXT: the script ends with exit code 1 and one sentence that says what to do.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 1
}
