// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Go.

// crypto/tls.(*Config).writeKeyLog(label string, random, secret []byte) of Go, which is called whether there is somewhere to write
// to or not.
SEC("uprobe/go")
int go(struct registers *it) {
    if (!is_target())
        return 0;
    struct line *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, GO, 0, 0);
    copy(&event->values[0], 0, (void *)it->GO2, it->GO3);
    copy(&event->values[1], 0, (void *)it->GO4, it->GO5);
    copy(&event->values[2], 0, (void *)it->GO7, it->GO8);
    submit(event, 0);
    return 0;
}
