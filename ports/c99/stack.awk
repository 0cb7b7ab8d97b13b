# The deepest chain of calls below each verb, in bytes of stack, from what gcc says with
# -fcallgraph-info=su. Not in it: the C library's routines, and what your callbacks take.
BEGIN { FS = "\"" }
/^node:/ && match($4, /[0-9]+ bytes/) {
    bytes = substr($4, RSTART, RLENGTH) + 0
    if (bytes > own[$2]) own[$2] = bytes
    if ($4 ~ /\(dynamic\)/) unbounded = unbounded " " $2
    if ($2 ~ /^tt_kernel_/) kernels[$2]
}
/^node:/ && $2 ~ /tt_slots\.c:(put|get)$/ { callback[$2 ~ /put$/ ? "tt_save" : "tt_restore"] = $2 }
# What these call by address is yours; all else that is called so is a kernel.
/^edge:/ && !($4 == "__indirect_call" && ($2 ~ /^tt_(save|restore)$|:transfer$/ || $6 ~ /tt_slots\.c/)) {
    to = $4 ~ /^tt_(save|restore)$/ && $6 ~ /tt_slots\.c/ ? $4 "()" : $4
    calls[$2] = calls[$2] SUBSEP to
}

function deepest(f, called, n, k, bytes, most) {
    if (f in deep) return deep[f]
    deep[f] = most = 0
    if (f == "__indirect_call") {
        for (k in kernels) if ((bytes = deepest(k)) > most) { most = bytes; way[f] = way[k] }
    } else {
        n = split(calls[f], called, SUBSEP)
        for (k = 2; k <= n; k++)
            if ((bytes = deepest(called[k])) > most) { most = bytes; way[f] = way[called[k]] }
        most += own[f]
        way[f] = " " f way[f]
    }
    return deep[f] = most
}

END {
    for (f in callback) { # as tt_slots.c calls them, with callbacks of its own
        own[f "()"] = own[f]
        calls[f "()"] = calls[f] SUBSEP callback[f]
    }
    n = split("tt_init tt_train tt_infer tt_save tt_restore tt_slots_save tt_slots_restore", verbs, " ")
    for (k = 1; k <= n; k++) {
        bytes = deepest(verbs[k])
        if (bytes > all) all = bytes
        printf "%5d %s\n", bytes, substr(way[verbs[k]], 2)
    }
    if (unbounded) { print "not bounded:" unbounded; exit 1 }
    printf "%5d bytes of stack at most\n", all
}
