# Changing the machine and taking it back: what was before is kept in the state directory before anything is set. Sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # set or used by the other files
#
# $state/values/KIND%TARGET   what a setting was, as it was read: a sysctl's bytes, the chosen word of a file with choices
# $state/values/row%TARGET    the same for a row of the table that stands for several files
# $state/files/%PATH          a file that stood where a drop-in was written
# $state/files.list           drop-ins that were written
# $state/dirs.list            directories that were made for them, outermost first
# $state/refused              settings that couldn't be had here

# By key of a row: the value that this run has set or found set by an earlier one.
declare -A ours=()
absent=0
refused=0
changed=0

# run COMMAND...: shows it, and does it unless this is a dry run.
run() {
  $dry_run || { "$@" && return 0 || return 1; }
  local word text=
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then text+=" $word"; else text+=" '${word//\'/\'\\\'\'}'"; fi
  done
  echo "${text# }"
}

# put PATH VALUE
put() {
  if $dry_run; then
    echo "echo '$2' >'$1'"
  else
    { printf '%s\n' "$2" >"$1"; } 2>/dev/null
  fi
}

escaped() { echo "${1//\//%}"; }

# Where a setting's value is kept.
kept() { echo "$state/values/$(escaped "$1%$2")"; }

# Where it is kept what a row was.
kept_row() {
  if [ "${kinds[$1]}" = file ]; then kept row "${targets[$1]}"; else kept "${kinds[$1]}" "${targets[$1]}"; fi
}

# keep KIND TARGET PATH: what a file says now, once.
keep() {
  local at text
  at=$(kept "$1" "$2")
  if $dry_run || [ -e "$at" ]; then return 0; fi
  text=$(cat "$3")
  if [[ $1 = file && $text =~ \[([^]]+)\] ]]; then text=${BASH_REMATCH[1]}; fi
  printf '%s\n' "$text" >"$at"
}

# make_dirs DIR: with those above it; what was made is told, outermost first.
make_dirs() {
  local dir=$1
  local -a missing=()
  while [ -n "$dir" ] && [ ! -d "$dir" ]; do
    missing=("$dir" "${missing[@]}")
    case $dir in */*) dir=${dir%/*} ;; *) dir=. ;; esac
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  mkdir "${missing[@]}" || return 1
  printf '%s\n' "${missing[@]}"
}

begin() {
  $dry_run && return 0
  local made
  if ! made=$(make_dirs "$state" 2>&1); then
    die "$NO_PERMISSION" "$state can't be made, so what was before can't be kept; be root, or name another place with --state"
  fi
  chmod 700 "$state"
  if [ -n "$made" ]; then printf '%s\n' "$made" >>"$state/dirs.list"; fi
  mkdir -p "$state/values" "$state/files"
  : >"$state/refused"
}

# set_row ROW: to what N connections want, unless it fits. Idempotent.
set_row() {
  local row=$1 kind=${kinds[$1]} target=${targets[$1]} key="${kinds[$1]} ${targets[$1]}" before value
  [ "$kind" != look ] || return 0
  if ! read_knob "$row"; then
    [ -n "${told[$key]:-}" ] || skipped "$row" "$now"
    told[$key]=1
    return 0
  fi
  before=$now
  [ -z "${gave_up[$key]:-}" ] || return 0
  if [ -e "$(kept_row "$row")" ]; then
    before=$(plain "$(cat "$(kept_row "$row")")")
  elif fits "$row" "$now"; then
    return 0
  fi
  value=$(value_of "$row" "$before")
  if [ "$kind" = nofile ] && ! allowed "$value"; then
    # A limit above nr_open would keep everybody from logging in.
    [ -n "${told[$key]:-}" ] || skipped "$row" "fs.nr_open can't be raised here, and bounds it"
    told[$key]=1
    return 0
  fi
  ours[$key]=$value
  [ "$now" != "$value" ] || return 0
  [ -z "${told[$key]:-}" ] || return 0
  told[$key]=1
  if $dry_run; then
    change "$row" "$value"
    return 0
  fi
  if change "$row" "$value" && read_knob "$row" && [ "$now" = "$value" ]; then
    changed=$((changed + 1))
    echo "set      ${names[$row]}: $before -> $value"
    return 0
  fi
  # Nothing has changed, so there is nothing to take back.
  if [ "$kind" != nofile ]; then
    unset "ours[$key]"
    gave_up[$key]=1
    forget "$row" "$before"
  fi
  refuse "$row"
}

declare -A told=() gave_up=()

# allowed LIMIT: whether fs.nr_open lets a process have it, or will.
allowed() { [ "$(cat "$(sysctl_path fs.nr_open)")" -ge "$1" ] || [ "${ours[sysctl fs.nr_open]:-0}" -ge "$1" ]; }

# skipped ROW WHY
skipped() {
  absent=$((absent + 1))
  if ! $dry_run; then echo "skipped  ${names[$1]}: $2"; fi
}

refuse() {
  echo "${kinds[$1]} ${targets[$1]}" >>"$state/refused"
  if [ "${kinds[$1]}" = nofile ]; then
    echo "later    ${names[$1]}: ${now} in this shell, ${ours[nofile nofile]} for the service and from the next login on"
    return
  fi
  refused=$((refused + 1))
  echo "refused  ${names[$1]}: stays $now; no right to it here, or the device doesn't know it"
}

# forget ROW BEFORE: what was kept for a change that didn't come about.
forget() {
  local path
  case ${kinds[$1]} in
    file)
      while IFS= read -r path; do
        [ -n "$path" ] || continue
        put "$path" "$(cat "$(kept file "$path")")" || true
        rm -f "$(kept file "$path")"
      done < <(files_of "${targets[$1]}")
      ;;
  esac
  rm -f "$(kept_row "$1")"
  now=$2
}

# change ROW VALUE: keeps what was, then sets.
change() {
  local kind=${kinds[$1]} target=${targets[$1]} path all=true
  case $kind in
    sysctl)
      path=$(sysctl_path "$target")
      keep sysctl "$target" "$path"
      if $dry_run; then run sysctl -w "$target=$2"; else put "$path" "$2"; fi
      ;;
    file)
      while IFS= read -r path; do
        keep file "$path" "$path"
        put "$path" "$2" || all=false
      done < <(files_of "$target")
      $dry_run || [ -e "$(kept row "$target")" ] || echo "$now" >"$(kept row "$target")"
      $all
      ;;
    nofile)
      # By drop-ins alone: the limit of a process that runs is its own.
      $dry_run || echo "$now" >"$(kept nofile nofile)"
      $dry_run
      ;;
    channels)
      $dry_run || [ -e "$(kept channels "$target")" ] || echo "$now" >"$(kept channels "$target")"
      run ethtool -L "$target" combined "$2" 2>/dev/null
      ;;
    coalesce)
      $dry_run || [ -e "$(kept coalesce "$target")" ] || echo "$now" >"$(kept coalesce "$target")"
      run ethtool -C "$target" adaptive-rx "$2" 2>/dev/null
      ;;
  esac
}

# --- Drop-ins: what holds after a restart of the machine ---------------------------------------------------------------------------------

drop_ins() {
  local row key value head="# Written by tuning/apply --connections $connections --role $role; tuning/undo removes it." path
  local sysctls='' limits='' unit='' udev='' tmpfiles='' rule
  for row in "${!names[@]}"; do
    key="${kinds[$row]} ${targets[$row]}"
    value=${ours[$key]:-}
    [ -n "$value" ] || continue
    case ${dropins[$row]} in
      sysctl.d) sysctls+="# ${reasons[$row]}"$'\n'"${targets[$row]} = $value"$'\n' ;;
      limits)
        limits+="* soft nofile $value"$'\n'"* hard nofile $value"$'\n'"root soft nofile $value"$'\n'"root hard nofile $value"$'\n'
        unit+="[Service]"$'\n'"LimitNOFILE=$value"$'\n'
        ;;
      tmpfiles.d)
        # tmpfiles.d knows patterns of its own.
        tmpfiles+="w ${targets[$row]} - - - - $value"$'\n'
        ;;
      udev)
        case ${kinds[$row]} in
          channels) rule="/usr/sbin/ethtool -L ${targets[$row]} combined $value" ;;
          coalesce) rule="/usr/sbin/ethtool -C ${targets[$row]} adaptive-rx $value" ;;
          *) rule="/bin/sh -c 'for f in ${targets[$row]}; do echo $value >\$\$f; done'" ;;
        esac
        path=${names[$row]%% *}
        udev+="ACTION==\"add\", SUBSYSTEM==\"net\", KERNEL==\"$path\", RUN+=\"$rule\""$'\n'
        ;;
    esac
  done
  drop_in "$etc/sysctl.d/90-stillwire.conf" "$head" "$sysctls"
  drop_in "$etc/security/limits.d/90-stillwire.conf" "$head" "$limits"
  drop_in "$etc/systemd/system/stillwire.service.d/90-tuning.conf" "$head" "$unit"
  drop_in "$etc/udev/rules.d/90-stillwire.rules" "$head" "$udev"
  drop_in "$etc/tmpfiles.d/90-stillwire.conf" "$head" "$tmpfiles"
}

# drop_in PATH HEAD TEXT
drop_in() {
  local text="$2"$'\n'"$3" made
  [ -n "$3" ] || return 0
  if $dry_run; then
    [ -d "${1%/*}" ] || echo "mkdir -p '${1%/*}'"
    printf "cat >'%s' <<'EOF'\n%sEOF\n" "$1" "$text"
    return
  fi
  if [ -f "$1" ] && [ "$(cat "$1")"$'\n' = "$text" ]; then return 0; fi
  if ! grep -qxF "$1" "$state/files.list" 2>/dev/null; then
    if [ -e "$1" ]; then cp -a "$1" "$state/files/$(escaped "$1")"; fi
    echo "$1" >>"$state/files.list"
  fi
  if made=$(make_dirs "${1%/*}") && printf '%s' "$text" >"$1" && chmod 644 "$1"; then
    changed=$((changed + 1))
    echo "wrote    $1"
  else
    refused=$((refused + 1))
    echo "refused  $1: can't be written"
  fi
  if [ -n "$made" ]; then printf '%s\n' "$made" >>"$state/dirs.list"; fi
}

# Those who read drop-ins are told, where they run and it is their /etc.
reload() {
  [ -z "$root" ] && [ -d /run/systemd/system ] || return 0
  run systemctl daemon-reload || true
  run udevadm control --reload || true
}

# --- Back -----------------------------------------------------------------------------------------------------------------------------

# Queues last: a file of a queue is there only while the queue is.
restore_values() {
  local kind at target path left=0
  for kind in file sysctl coalesce channels nofile row; do
    for at in "$state/values/$kind%"*; do
      [ -e "$at" ] || continue
      target=${at##*/values/}
      target=${target#"$kind%"}
      case $kind in
        file)
          path=${target//%//}
          # A queue may be gone.
          if [ -e "$path" ] && ! put "$path" "$(cat "$at")"; then left=$((left + 1)) && continue; fi
          ;;
        sysctl)
          path=$(sysctl_path "$target")
          if [ -e "$path" ] && ! put "$path" "$(cat "$at")"; then
            echo "refused  $target: can't be set back to $(cat "$at")"
            left=$((left + 1))
            continue
          fi
          ;;
        coalesce) run ethtool -C "$target" adaptive-rx "$(cat "$at")" || true ;;
        channels) run ethtool -L "$target" combined "$(cat "$at")" || true ;;
      esac
      if ! $dry_run; then
        [ "$kind" = nofile ] || [ "$kind" = row ] || echo "back     ${target//%//}: $(cat "$at")"
        rm -f "$at"
      fi
    done
  done
  return $((left > 0))
}

restore_files() {
  local path
  [ -f "$state/files.list" ] || return 0
  while IFS= read -r path; do
    if [ -e "$state/files/$(escaped "$path")" ]; then
      run cp -a "$state/files/$(escaped "$path")" "$path"
    else
      run rm -f "$path"
    fi
  done <"$state/files.list"
}

remove_dirs() {
  local dir dirs=
  if [ -f "$state/dirs.list" ]; then dirs=$(tac "$state/dirs.list"); fi
  if $dry_run; then
    echo "rm -rf '$state'"
  else
    rm -rf "${state:?}/values" "$state/files" "$state/files.list" "$state/dirs.list" "$state/refused"
  fi
  while IFS= read -r dir; do
    # Others may have put something there since.
    if [ -n "$dir" ]; then run rmdir "$dir" 2>/dev/null || true; fi
  done <<<"$dirs"
}
