/* Clients that connect, read a line and close: callers.c PORT CLIENTS CONNECTIONS.
 * Prints how many connections were bad, then for each pid that answered how many it had. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct tally { int pid, count; } *tallies;
enum { MOST = 64 };

static void count(int pid) {
    for (int at = 0; at < MOST; at++) {
        int empty = 0;
        if (tallies[at].pid == pid || __atomic_compare_exchange_n(&tallies[at].pid, &empty, pid, 0, 5, 5)
            || tallies[at].pid == pid) {
            __atomic_add_fetch(&tallies[at].count, 1, 5);
            return;
        }
    }
}

static int call(struct sockaddr_in *address) {
    char text[256];
    int length = 0, got = 0, sock = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(sock, (struct sockaddr *)address, sizeof *address) == 0)
        while ((got = read(sock, text + length, sizeof text - 1 - length)) > 0)
            length += got;
    close(sock);
    text[length] = 0;
    char *pid = strstr(text, "(pid ");
    return got == 0 && pid ? atoi(pid + 5) : 0;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int clients = atoi(argv[2]), each = atoi(argv[3]) / clients;
    tallies = mmap(NULL, sizeof *tallies * MOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int client = 0; client < clients; client++)
        if (fork() == 0) {
            for (int number = 0; number < each; number++)
                count(call(&address));
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    int bad = 0;
    for (int at = 0; at < MOST && tallies[at].pid + tallies[at].count; at++)
        if (tallies[at].pid)
            printf("%d\n", tallies[at].count);
        else
            bad += tallies[at].count;
    printf("bad %d\n", bad);
    return 0;
}
