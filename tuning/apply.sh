#!/bin/sh
# Installs ringgate's host settings and takes them back.
#
#   apply.sh [--prefix DIR] [--dry-run] apply|show|revert
#
# apply   installs the files beside this script under /etc and sets the sysctls now; what was there is saved first
# show    prints every setting: now, wanted, and what revert would restore
# revert  restores exactly what apply saved; a file edited since is kept beside it as NAME.before-revert
#
# --prefix (or PREFIX) works on a directory instead of /; --dry-run prints what would be done and changes nothing.
# A second apply keeps the first one's saved values. Exit status: 0 done, 1 something could not be set, 2 usage.
set -eu

source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=${PREFIX:-}
dry_run=false
action=
status=0

usage() {
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 2
}

say() { printf '%s\n' "$*"; }

# Runs a command, or prints it in a dry run.
run() {
    if $dry_run; then say "would run: $*"; else "$@"; fi
}

failed() {
    say "apply.sh: $*" >&2
    status=1
}

# source, destination below the prefix, mode; a file marked `once` is never put over an existing one.
files() {
    cat <<LIST
sysctl.d/90-ringgate.conf etc/sysctl.d/90-ringgate.conf 644 always
limits.d/ringgate.conf etc/security/limits.d/ringgate.conf 644 always
systemd/ringgate.service etc/systemd/system/ringgate.service 644 always
systemd/ringgate-worker.service etc/systemd/system/ringgate-worker.service 644 always
ringgate.env etc/ringgate/ringgate.env 600 once
LIST
}

# The settings of the sysctl file, as `key value…` lines.
settings() {
    sed -n 's/^ *\([a-z][a-z0-9_.]*\) *= *\(.*[^ ]\) *$/\1 \2/p' "$source_dir/sysctl.d/90-ringgate.conf"
}

# Where a setting lives: net.core.somaxconn is /proc/sys/net/core/somaxconn.
setting_path() { printf '%s/proc/sys/%s' "$prefix" "$(printf %s "$1" | tr . /)"; }

# A value with its tabs as spaces, to compare and to print.
value_of() { tr '\t' ' ' <"$1"; }

# Makes a directory and its parents, noting those that are new so that revert can take them away.
make_directory() {
    [ -d "$1" ] && return
    make_directory "$(dirname -- "$1")"
    run mkdir "$1"
    $dry_run || printf '%s\n' "$1" >>"$saved/directories"
}

# What stands at $2 is saved once, then $1 is put there.
install_file() {
    from=$source_dir/$1 to=$prefix/$2 mode=$3 policy=$4
    if [ "$policy" = once ] && [ -e "$to" ]; then
        say "kept      $to"
        return
    fi
    if [ -e "$to" ] && cmp -s "$from" "$to"; then
        say "unchanged $to"
        return
    fi
    if ! $dry_run && [ ! -e "$saved/files/$2" ] && [ ! -e "$saved/absent/$2" ]; then
        if [ -e "$to" ]; then kept=files; else kept=absent; fi
        mkdir -p "$(dirname -- "$saved/$kept/$2")"
        if [ -e "$to" ]; then cp -p "$to" "$saved/files/$2"; else : >"$saved/absent/$2"; fi
    fi
    make_directory "$(dirname -- "$to")"
    run cp "$from" "$to"
    run chmod "$mode" "$to"
    $dry_run || say "installed $to"
}

set_value() {
    key=$1 value=$2 path=$(setting_path "$1")
    if [ ! -f "$path" ]; then
        say "absent    $key (this kernel does not have it)"
        return
    fi
    if ! $dry_run && [ ! -e "$saved/sysctl/$key" ]; then
        mkdir -p "$saved/sysctl"
        cat "$path" >"$saved/sysctl/$key"
    fi
    if $dry_run; then
        say "would set $key = $value (now $(value_of "$path"))"
    elif printf '%s\n' "$value" 2>/dev/null >"$path"; then
        say "set       $key = $value"
    else
        failed "cannot set $key; in a container, set it on the host"
    fi
}

apply() {
    $dry_run || mkdir -p "$saved"
    while read -r from to mode policy; do install_file "$from" "$to" "$mode" "$policy"; done <<LIST
$(files)
LIST
    while read -r key value; do set_value "$key" "$value"; done <<LIST
$(settings)
LIST
    reload
}

show() {
    while read -r key value; do
        path=$(setting_path "$key")
        if [ -f "$path" ]; then now=$(value_of "$path"); else now=absent; fi
        if [ -f "$saved/sysctl/$key" ]; then before=$(value_of "$saved/sysctl/$key"); else before=-; fi
        say "$key: now $now, wanted $value, saved $before"
    done <<LIST
$(settings)
LIST
    while read -r from to mode policy; do
        if [ ! -e "$prefix/$to" ]; then state=missing
        elif cmp -s "$source_dir/$from" "$prefix/$to"; then state=installed
        else state=different; fi
        say "$prefix/$to: $state (mode $mode, $policy)"
    done <<LIST
$(files)
LIST
}

# An installed file that somebody edited is not lost by reverting.
keep_edit() {
    if [ -e "$prefix/$2" ] && ! cmp -s "$source_dir/$1" "$prefix/$2"; then
        run cp -p "$prefix/$2" "$prefix/$2.before-revert"
        $dry_run || say "kept the edited $prefix/$2 as $prefix/$2.before-revert"
    fi
}

revert_file() {
    if [ -e "$saved/files/$2" ]; then
        keep_edit "$1" "$2"
        run cp -p "$saved/files/$2" "$prefix/$2"
        $dry_run || say "restored  $prefix/$2"
    elif [ -e "$saved/absent/$2" ]; then
        keep_edit "$1" "$2"
        run rm -f "$prefix/$2"
        $dry_run || say "removed   $prefix/$2"
    fi
}

revert_value() {
    [ -f "$1" ] || return 0
    key=${1##*/} path=$(setting_path "${1##*/}")
    if $dry_run; then
        say "would restore $key = $(value_of "$1")"
    elif cat "$1" 2>/dev/null >"$path"; then
        say "restored  $key = $(value_of "$1")"
    else
        failed "cannot restore $key = $(value_of "$1"); it stays saved in $1"
    fi
}

revert() {
    if [ ! -d "$saved" ]; then
        say "nothing to revert: $saved does not exist"
        return
    fi
    while read -r from to _ _; do revert_file "$from" "$to"; done <<LIST
$(files)
LIST
    for value in "$saved"/sysctl/*; do revert_value "$value"; done
    [ "$status" -eq 0 ] || return 0
    if [ -f "$saved/directories" ]; then
        # Deepest first; a directory that somebody else uses by now stays.
        sort -r "$saved/directories" | while read -r made; do run rmdir "$made" 2>/dev/null || :; done
    fi
    run rm -r "$saved"
    reload
}

# systemd reads unit files again; only on the real root.
reload() {
    if [ -z "$prefix" ] && [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -ge 2 ] || usage; prefix=$2; shift ;;
        --prefix=*) prefix=${1#--prefix=} ;;
        --dry-run) dry_run=true ;;
        apply|show|revert) [ -z "$action" ] || usage; action=$1 ;;
        *) usage ;;
    esac
    shift
done
[ -n "$action" ] || usage
prefix=${prefix%/}
saved=$prefix/var/lib/ringgate-tuning
if [ -z "$prefix" ] && [ "$action" != show ] && ! $dry_run && [ "$(id -u)" -ne 0 ]; then
    say "apply.sh: $action changes the host: run it as root, or with --dry-run to look" >&2
    exit 1
fi
$action
exit "$status"
