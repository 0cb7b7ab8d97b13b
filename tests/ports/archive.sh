# Sourced. archive DIR "deb-src" SUITE [LINE...]: an apt of its own in DIR, over the archive that this
# machine's apt uses, with these lines of configuration more; APT_CONFIG names it.
archive() {
    local apt=$1 kind=$2 suite=$3 mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
    [ -n "$mirror" ] || mirror=$(awk '$1 == "deb" { for (k = 2; k <= NF; k++)
        if ($k ~ "://") { print $k; exit } }' /etc/apt/sources.list)
    mkdir -p "$apt"/{lists,cache/archives}/partial
    : >"$apt/status"
    echo "$kind [signed-by=$keys] $mirror $suite main" >"$apt/sources.list"
    printf '%s\n' "${@:4}" >"$apt/apt.conf"
    cat >>"$apt/apt.conf" <<CONF
Dir::State "$apt"; Dir::State::status "$apt/status"; Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache"; Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "/dev/null";
Acquire::Languages "none"; Acquire::Retries "3"; APT::Sandbox::User "root";
CONF
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update
}
