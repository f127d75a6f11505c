# The one table of settings, and how each is read and compared. Sourced, never run; nothing in it changes the machine.
# shellcheck shell=bash disable=SC2034 # what is set here is used by the files that source this
# shellcheck disable=SC2154 # options.bash has set them

# Columns of the table. A row's `relation` says when it fits:
#   =  the same    >=  each number at least    <=  at most    in  one of the words    range  at least from..to    look  a function has judged
names=() kinds=() targets=() relations=() wants=() dropins=() reasons=()

# knob NAME KIND TARGET RELATION WANTED DROP-IN REASON
knob() {
  names+=("$1") kinds+=("$2") targets+=("$3") relations+=("$4") wants+=("$5") dropins+=("$6") reasons+=("$7")
}

# sysctl NAME RELATION WANTED REASON
sysctl_knob() { knob "$1" sysctl "$1" "$2" "$3" sysctl.d "$4"; }

# look NAME FUNCTION WANTED REASON: what no command here changes.
look() { knob "$1" look "$2" look "$3" - "$4"; }

at_least() { echo $(($1 > $2 ? $1 : $2)); }

# The table, for ${sum[@]} and $role.
knobs() {
  names=() kinds=() targets=() relations=() wants=() dropins=() reasons=()
  local serves=false calls=false
  [ "$role" = loadgen ] || serves=true
  [ "$role" = server ] || calls=true

  # Files. nr_open before the limit, which it bounds.
  sysctl_knob fs.nr_open '>=' "$(at_least 1048576 "${sum[open_files_one]}")" "bounds the limit of open files of any process"
  sysctl_knob fs.file-max '>=' "${sum[open_files_all]}" "open files of the whole system; root alone may pass it"
  knob open-files nofile nofile '>=' "${sum[open_files_one]}" limits "a socket is a file; one table that holds all spares a copy of each connection"

  # Coming in.
  if $serves; then
    sysctl_knob net.core.somaxconn '>=' "${sum[backlog]}" "cuts the backlog of a listener: in a storm those beyond it wait for their SYN to be sent again, 1 s, 3 s, 7 s"
    sysctl_knob net.ipv4.tcp_syncookies in '1 2' "a full backlog still answers; off, tcp_max_syn_backlog would bound storms too"
  fi
  sysctl_knob net.ipv4.tcp_mem '>=' "${sum[tcp_mem]}" "pages of unread and unsent bytes, of all sockets: a page each in a message to all; past the third figure sockets stall"
  if $serves; then
    sysctl_knob net.ipv4.tcp_notsent_lowat '<=' 16384 "what a slow phone leaves unsent in the kernel; the rest waits in the server, bounded and counted"
  fi

  # Going out.
  if $calls; then
    sysctl_knob net.ipv4.ip_local_port_range range '10000 65535' "source ports of one address to one destination"
    sysctl_knob net.ipv4.tcp_tw_reuse in 1 "a port in TIME_WAIT is taken again after a second, not after 60; on by default for loopback only"
  fi
  if [ -e "$machine/proc/sys/net/netfilter/nf_conntrack_max" ]; then
    sysctl_knob net.netfilter.nf_conntrack_max '>=' "${sum[conntrack]}" "connection tracking is loaded: past this many it drops packets of new connections"
  fi

  # Memory and cores.
  if swap_in_use; then
    sysctl_knob vm.swappiness '<=' 1 "an idle phone's slot that was swapped out stops a reactor when its ping is due"
  fi
  knob thp file /sys/kernel/mm/transparent_hugepage/enabled in 'madvise never' tmpfiles.d "huge pages for sparse memory; the server refuses them for itself, others on the machine don't"
  knob governor file '/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor' '=' performance tmpfiles.d "a core that wakes slowly is latency at p99"

  local nic
  for nic in $(physical_nics); do nic_knobs "$nic"; done

  look kernel look_kernel 'no known fault' "faults of kernels that hit machines with very many connections"
  look swap look_swap none "see vm.swappiness; better none at all"
  look clock-source look_clock 'tsc or kvm-clock' "another clock makes every look at the time a system call"
  look connection-table look_table "${sum[hash_buckets]} buckets" "chains of the kernel's table of connections; by default at most 524,288 buckets, whatever the memory"
  look connection-tracking look_tracking 'not in use' "a look-up per packet and 320 bytes a connection that no phone server needs; filter without state, or \`notrack\` the server's port"
  look overcommit look_overcommit '0 or 1' "slots are reserved as address space at start; 2 refuses that"
  look numa look_numa '1 node' "memory of another node is half as slow again; one server a node, with numactl --cpunodebind --membind"
  look irqbalance look_irqbalance 'not running' "moves interrupts away from the cores that they were given"
  look hostname look_hostname 'a name of its own' "reports and logs of many machines are told apart by it"
  look cores look_cores "${sum[cores]}" "cores that bring everybody back within a minute after a storm; as many queues of the network card"
}

# --- Network cards --------------------------------------------------------------------------------------------------------------------

# Those named with --nic, or all that have a device behind them.
physical_nics() {
  local at
  if [ ${#nics[@]} -gt 0 ]; then
    printf '%s\n' "${nics[@]}"
    return
  fi
  for at in "$machine"/sys/class/net/*; do
    if [ -e "$at/device" ]; then echo "${at##*/}"; fi
  done
}

cores() {
  local cpus=("$machine"/sys/devices/system/cpu/cpu[0-9]*)
  echo ${#cpus[@]}
}

# The mask of one core, as the kernel prints it: 32 bits a group.
mask() {
  local groups=$(($1 / 32)) text
  printf -v text '%x' $((1 << ($1 % 32)))
  while [ "$groups" -gt 0 ]; do
    text+=,00000000
    groups=$((groups - 1))
  done
  echo "$text"
}

nic_knobs() {
  local nic=$1 dir=/sys/class/net/$1 cores queues most at index name irq
  cores=$(cores)
  most=$(channels "$nic" 1 || echo 0)
  if [ "$most" -gt 0 ]; then
    knob "$nic queues" channels "$nic" '=' $((most < cores ? most : cores)) udev "a queue a core, so that each core takes its own interrupts"
    knob "$nic coalescing" coalesce "$nic" '=' on udev "one interrupt for many packets under load, one for one when idle"
  fi
  knob "$nic RPS" file "$dir/queues/rx-*/rps_cpus" '=' 0 udev "with a queue a core, moving packets in software costs a wake-up each"
  queues=("$machine$dir"/queues/tx-*)
  # One queue alone: nothing to spread.
  [ ${#queues[@]} -gt 1 ] || return 0
  for at in "${queues[@]}"; do
    index=${at##*-}
    knob "$nic XPS $index" file "$dir/queues/tx-$index/xps_cpus" '=' "$(mask $((index % cores)))" udev "a core sends through its own queue"
  done
  # Interrupts whose name ends in a queue's number, such as eth0-TxRx-3, mlx5_comp3@pci:0000:01:00.0, virtio2-input.3.
  for at in "$machine$dir"/device/msi_irqs/* "$machine$dir"/device/../msi_irqs/*; do
    irq=${at##*/}
    if [ ! -e "$at" ] || [ ! -e "$machine/proc/irq/$irq/smp_affinity_list" ]; then continue; fi
    name=$(awk -v irq="$irq:" '$1 == irq { print $NF }' "$machine/proc/interrupts")
    [[ ${name%%@*} =~ ([0-9]+)$ ]] || continue
    index=${BASH_REMATCH[1]}
    knob "$nic IRQ $irq" file "/proc/irq/$irq/smp_affinity_list" '=' $((10#$index % cores)) - "the interrupts of queue $index on core $((10#$index % cores)); gone at a restart of the machine"
  done
}

# channels NIC SECTION: combined queues that the card could have (1) or has (2).
channels() {
  ethtool -l "$1" 2>/dev/null | awk -v want="$2" '/^(Pre-set maximums|Current hardware settings)/ { section++ }
    section == want && $1 == "Combined:" && $2 ~ /^[0-9]+$/ { print $2; found = 1 } END { exit !found }'
}

# --- Reading --------------------------------------------------------------------------------------------------------------------------

# Files of a row of kind `file`, which may be a pattern.
files_of() { compgen -G "$machine$1" || true; }

# The path of a sysctl.
sysctl_path() { echo "$machine/proc/sys/${1//.//}"; }

# plain TEXT: the word in brackets if there is one, and single spaces.
plain() {
  local text=$1
  if [[ $text =~ \[([^]]+)\] ]]; then text=${BASH_REMATCH[1]}; fi
  # shellcheck disable=SC2086 # splitting is what is wanted
  echo $text
}

# read_knob ROW: what it is now, in $now, and whether $here_can change it. Not there: fails, and $now says why.
read_knob() {
  local kind=${kinds[$1]} target=${targets[$1]} path file text all=
  now='' here_can=true
  case $kind in
    sysctl)
      path=$(sysctl_path "$target")
      if [ ! -e "$path" ]; then
        now='not here (another network namespace or kernel)'
        return 1
      fi
      now=$(plain "$(cat "$path" 2>/dev/null)")
      [ -w "$path" ] || here_can=false
      ;;
    file)
      while IFS= read -r file; do
        [ -n "$file" ] || continue
        text=$(cat "$file" 2>/dev/null) || continue
        text=$(plain "$text")
        case $file in *_cpus) text=$(plain_mask "$text") ;; esac
        [[ " $all " == *" $text "* ]] || all="${all:+$all }$text"
        [ -w "$file" ] || here_can=false
      done < <(files_of "$target")
      if [ -z "$all" ]; then
        now='not here (no such device)'
        return 1
      fi
      now=$all
      ;;
    nofile)
      now=$(ulimit -Hn)
      if [ "$now" = unlimited ]; then now=9223372036854775807; fi
      ;;
    channels) now=$(channels "$target" 2) || { now='not here' && return 1; } ;;
    coalesce)
      now=$(ethtool -c "$target" 2>/dev/null | awk '/^Adaptive RX:/ { print $3 }')
      [ "$now" = on ] || [ "$now" = off ] || { now='not here' && return 1; }
      ;;
    look) "$target" ;;
  esac
}

# A mask without its leading zeros.
plain_mask() {
  local text=${1//,/}
  text=${text#"${text%%[!0]*}"}
  if [ ${#text} -gt 8 ]; then
    # Back to groups of 32 bits.
    local out=
    while [ ${#text} -gt 8 ]; do
      out=,${text: -8}$out
      text=${text:0:${#text}-8}
    done
    text=$text$out
  fi
  echo "${text:-0}"
}

# fits ROW NOW
fits() {
  local relation=${relations[$1]} word i
  local -a have want
  read -ra have <<<"$2"
  read -ra want <<<"${wants[$1]}"
  case $relation in
    '=') [ "$2" = "${wants[$1]}" ] ;;
    in)
      for word in "${want[@]}"; do [ "$word" != "$2" ] || return 0; done
      return 1
      ;;
    '>=')
      # -lt would take what is past 63 bits for an error: fs.file-max of some systems is 2^63-1, which is in.
      for i in "${!want[@]}"; do [ "${have[$i]:-0}" -ge "${want[$i]}" ] || return 1; done
      ;;
    # Figures such as 4294967295 stand for no limit.
    '<=') [ "$2" -le "${wants[$1]}" ] ;;
    range) [ "${have[0]}" -le "${want[0]}" ] && [ "${have[1]}" -ge "${want[1]}" ] ;;
    look) [ "$verdict" = ok ] ;;
  esac
}

# value_of ROW BEFORE: what to set. Never less than what was there, where more is better.
value_of() {
  local i
  local -a had want
  read -ra had <<<"$2"
  read -ra want <<<"${wants[$1]}"
  case ${relations[$1]} in
    in) echo "${want[0]}" ;;
    '>=')
      for i in "${!want[@]}"; do want[i]=$(at_least "${want[i]}" "${had[i]:-0}"); done
      echo "${want[*]}"
      ;;
    *) echo "${wants[$1]}" ;;
  esac
}

# command_of ROW VALUE: as an operator would type it.
command_of() {
  case ${kinds[$1]} in
    sysctl) echo "sysctl -w ${targets[$1]}='$2'" ;;
    file) echo "echo $2 | tee ${targets[$1]}" ;;
    nofile) echo "ulimit -n $2 (as root), LimitNOFILE=$2 in the unit, or more --reactors" ;;
    channels) echo "ethtool -L ${targets[$1]} combined $2" ;;
    coalesce) echo "ethtool -C ${targets[$1]} adaptive-rx $2" ;;
    look) echo "${advice:-}" ;;
  esac
}

# --- What is only looked at: sets $now, $verdict (ok, note) and $advice -----------------------------------------------------------------

swap_in_use() { [ "$(wc -l <"$machine/proc/swaps" 2>/dev/null || echo 1)" -gt 1 ]; }

# older A B: whether kernel version A is older than B.
older() {
  [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

# Faults that are known well; each is said with the first version that is without it.
look_kernel() {
  local release version
  release=$(cat "$machine/proc/sys/kernel/osrelease")
  version=$(grep -oE '^[0-9]+(\.[0-9]+){0,2}' <<<"$release")
  now=$release verdict=note advice=
  if older "$version" 4.6; then
    advice="from 4.6 on: before 4.4 all SYNs of a listener meet at one lock, before 4.6 no steering of TCP listeners"
  elif older "$version" 4.12; then
    advice="from 4.12 on: tcp_tw_recycle, gone since then, drops phones that share an address; leave it 0"
  elif older "$version" 5.1.11; then
    advice="from 5.1.11 on (4.19.52, 4.14.127): CVE-2019-11477, a remote crash by SACK; a distribution's kernel may have the fix under an older number"
  elif older "$version" 6.0; then
    advice="from 6.0 on: a socket that was busy once may keep up to 2 MB of tcp_mem reserved, so tcp_mem fills while little is pending; raise it, or the kernel"
  else
    verdict=ok
  fi
}

look_swap() {
  verdict=ok now=none advice=
  if swap_in_use; then
    now=$(awk 'NR > 1 { n += $3 } END { print n " KB" }' "$machine/proc/swaps") verdict=note advice='swapoff -a, and no swap in /etc/fstab'
  fi
}

look_clock() {
  now=$(cat "$machine/sys/devices/system/clocksource/clocksource0/current_clocksource" 2>/dev/null || echo unknown)
  verdict=note advice='boot with clocksource=tsc, or find out from dmesg why the kernel gave it up'
  case $now in tsc | kvm-clock | arch_sys_counter | hyperv_clocksource_tsc_page) verdict=ok advice= ;; esac
}

look_table() {
  local buckets
  buckets=$(cat "$machine/proc/sys/net/ipv4/tcp_ehash_entries" 2>/dev/null || echo 0)
  # In a namespace without a table of its own the figure is negative: the first namespace's, which holds.
  buckets=${buckets#-}
  now="$buckets buckets" verdict=ok advice=
  if [ "$buckets" = 0 ]; then
    now='not shown by this kernel'
  elif [ "$buckets" -lt "${sum[hash_buckets]}" ]; then
    verdict=note advice="boot with thash_entries=${sum[hash_buckets]}"
  fi
}

look_tracking() {
  now=$(cat "$machine/proc/sys/net/netfilter/nf_conntrack_count" 2>/dev/null || echo none) verdict=ok advice=
  case $now in
    none) now='not loaded' ;;
    0) now='loaded, nothing tracked' ;;
    *) now="$now tracked" verdict=note advice='nft: the rule "tcp dport 1883 notrack" in a prerouting chain of priority raw, and its twin for output' ;;
  esac
}

look_overcommit() {
  now=$(cat "$machine/proc/sys/vm/overcommit_memory" 2>/dev/null || echo 0) verdict=ok advice=
  if [ "$now" = 2 ]; then verdict=note advice='sysctl -w vm.overcommit_memory=0'; fi
}

look_numa() {
  local nodes=("$machine"/sys/devices/system/node/node[0-9]*)
  now="${#nodes[@]} node(s)" verdict=ok advice=
  if [ ${#nodes[@]} -gt 1 ]; then verdict=note advice='numactl --cpunodebind=0 --membind=0 stillwire serve ..., the node of the network card'; fi
}

look_irqbalance() {
  now='not running' verdict=ok advice=
  if [ -z "$machine" ] && pgrep -x irqbalance >/dev/null 2>&1; then
    now=running verdict=note advice='systemctl disable --now irqbalance'
  fi
}

look_hostname() {
  now=$(cat "$machine/proc/sys/kernel/hostname") verdict=ok advice=
  case $now in '' | '(none)' | localhost | localhost.localdomain | debian | ubuntu | vm)
    verdict=note advice='hostnamectl set-hostname NAME'
    ;;
  esac
}

look_cores() {
  now=$(cores) verdict=ok advice=
  if [ "$now" -lt "${sum[cores]}" ]; then verdict=note advice='a machine with more cores, or storms last longer'; fi
}
