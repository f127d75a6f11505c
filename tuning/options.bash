# What check, apply and undo have in common: the command line, where things are, and the sums. Sourced, never run.
# shellcheck shell=bash disable=SC2034 # what is set here is used by the files that source this

readonly USAGE=64 UNAVAILABLE=69 NO_PERMISSION=77

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

connections=1000000
role=server
json=false
dry_run=false
root=
machine=
state=
nics=()

# die CODE TEXT
die() {
  echo "${0##*/}: $2" >&2
  exit "$1"
}

# options "FLAG..." ARGUMENTS...: the flags that this command knows, then what was typed.
options() {
  local known=" $1 --help --state --root --machine --nic " flag
  shift
  while [ $# -gt 0 ]; do
    flag=$1
    [[ $known == *" $flag "* ]] || die $USAGE "unknown argument '$flag'; see --help"
    shift
    case $flag in
      --help)
        usage
        exit 0
        ;;
      --json) json=true ;;
      --dry-run) dry_run=true ;;
      *)
        [ $# -gt 0 ] || die $USAGE "$flag needs a value; see --help"
        case $flag in
          --connections) connections=$(count "$1") || exit $USAGE ;;
          --role) role=$1 ;;
          --root) root=${1%/} ;;
          --state) state=$1 ;;
          --machine) machine=${1%/} ;;
          --nic) nics+=("$1") ;;
        esac
        shift
        ;;
    esac
  done
  case $role in server | loadgen | both) ;; *) die $USAGE "--role '$role': write server, loadgen or both" ;; esac
  etc=$root/etc
  state=${state:-$root/var/lib/stillwire-tuning}
}

# 1500, 15k, 2m
count() {
  local digits=${1%[kKmM]}
  [[ $digits =~ ^[1-9][0-9]{0,8}$ ]] || die $USAGE "--connections '$1': write 1500, 15k or 2m"
  case $1 in
    *[kK]) echo $((digits * 1000)) ;;
    *[mM]) echo $((digits * 1000000)) ;;
    *) echo "$digits" ;;
  esac
}

# The sums of the server itself, so that there is one source of them: `stillwire sizing`.
declare -A sum=()
sums_json=
sums() {
  local binary line key value
  binary=$(stillwire) || exit $UNAVAILABLE
  sums_json=$("$binary" sizing --connections "$connections" --role "$role" --json) || exit $USAGE
  while IFS= read -r line; do
    [[ $line =~ ^\ *\"([a-z_]+)\":\ (.*[^,]),?$ ]] || continue
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    value=${value%\"}
    sum[$key]=${value#\"}
  done <<<"$sums_json"
  [ "${sum[connections]:-}" = "$connections" ] || die $UNAVAILABLE "$binary sizing: not understood"
}

# The binary: named, built here, or installed.
stillwire() {
  local at
  for at in "${STILLWIRE_BIN:-}" "$here/../target/release/stillwire" "$here/../target/debug/stillwire" /usr/local/bin/stillwire "$(command -v stillwire || true)"; do
    if [ -n "$at" ] && [ -x "$at" ]; then
      echo "$at"
      return
    fi
  done
  die $UNAVAILABLE "no stillwire binary, which has the sums; \`cargo build --release\` first, or name one with STILLWIRE_BIN"
}
