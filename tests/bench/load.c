/* A known number of UDP datagrams at a known rate, and somewhere for them to go.
 *
 *     load send ADDRESS PORT RATE SECONDS BYTES   RATE datagrams a second, 0 for as many as the machine makes;
 *                                                 prints how many were sent, and in how many seconds
 *     load sink ADDRESS PORT                      a socket that nobody reads: no ICMP comes back
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, LONGEST = 1472 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Sends in small batches, each when it is due: bursts of a thousand would measure the burst, not the rate. */
static void load(int socket, double rate, double seconds, size_t bytes) {
    static char payload[LONGEST];
    struct iovec part = {payload, bytes};
    struct mmsghdr messages[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    unsigned long long sent = 0;
    double start = now(), elapsed = 0;
    while ((elapsed = now() - start) < seconds) {
        double due = rate > 0 ? rate * elapsed - (double)sent : BATCH;
        if (due < 1) {
            /* A pause that is due in less than a hundredth of a millisecond is not worth the kernel's timer. */
            struct timespec pause = {0, (long)((1 - due) / rate * 1e9)};
            if (pause.tv_nsec > 10000) nanosleep(&pause, NULL);
            continue;
        }
        int count = sendmmsg(socket, messages, due < BATCH ? (unsigned)due : BATCH, 0);
        if (count > 0) sent += (unsigned long long)count;
        else if (errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED) err(1, "cannot send");
    }
    printf("%llu %.6f\n", sent, elapsed);
}

int main(int count, char **words) {
    int sends = count == 7 && !strcmp(words[1], "send");
    if (!sends && !(count == 4 && !strcmp(words[1], "sink"))) errx(2, "usage: load send ADDRESS PORT RATE SECONDS BYTES | load sink ADDRESS PORT");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[3]))};
    if (inet_pton(AF_INET, words[2], &address.sin_addr) != 1) errx(2, "%s is no IPv4 address", words[2]);
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) err(1, "cannot open a socket");
    if (sends) {
        size_t bytes = strtoul(words[6], NULL, 10);
        if (bytes > LONGEST) errx(2, "%zu bytes do not fit one packet", bytes);
        if (connect(descriptor, (struct sockaddr *)&address, sizeof address)) err(1, "cannot connect to %s", words[2]);
        load(descriptor, atof(words[4]), atof(words[5]), bytes);
        return 0;
    }
    int least = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
    if (bind(descriptor, (struct sockaddr *)&address, sizeof address)) err(1, "cannot listen on %s", words[2]);
    puts("ready");
    fflush(stdout);
    for (;;) pause();
}
