/* Keeps what is on the disk: whenever a file of a folder is flushed a copy of it, and when the folder is, its names.
 *
 * Loaded by LD_PRELOAD. A power cut leaves of each file what was flushed last, so the copies up to any moment are what
 * would be found after a cut at that moment. A copy is named by its number, the file's inode and the file's name.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long flushed;

long flushes(void) { return flushed; }

static void list(const char *folder, FILE *to) {
    DIR *opened = opendir(folder);
    for (struct dirent *each; opened && (each = readdir(opened));)
        if (each->d_type == DT_REG) fprintf(to, "%lu %s\n", (unsigned long)each->d_ino, each->d_name);
    if (opened) closedir(opened);
}

static void keep(int file) {
    const char *folder = getenv("POWER_FOLDER"), *copies = getenv("POWER_COPIES");
    char link[64], path[PATH_MAX], copy[PATH_MAX * 2], bytes[65536];
    struct stat is;
    if (!folder || !copies || fstat(file, &is)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    int whole = !strcmp(path, folder);
    if (!whole && (!S_ISREG(is.st_mode) || strncmp(path, folder, strlen(folder)))) return;
    snprintf(copy, sizeof copy, "%s/%06ld %lu %s", copies, flushed + 1, (unsigned long)is.st_ino,
             whole ? "." : strrchr(path, '/') + 1);
    FILE *to = fopen(copy, "w");
    if (!to) abort();
    if (whole) list(folder, to);
    int from = whole ? -1 : open(path, O_RDONLY);
    for (ssize_t got; from >= 0 && (got = read(from, bytes, sizeof bytes)) > 0;)
        if (fwrite(bytes, 1, got, to) != (size_t)got) abort();
    if (from >= 0) close(from);
    fclose(to);
    flushed++;
}

#define FLUSH(name)                                                       \
    int name(int file) {                                                  \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name);         \
        int failed = real(file);                                          \
        if (!failed) keep(file);                                          \
        return failed;                                                    \
    }
FLUSH(fsync)
FLUSH(fdatasync)
