"""Threads that all run at once."""

import threading


def run_in_threads(count, target):
    """Return what ``target`` made of 0 to ``count - 1``, each in a thread of its own; None where it raised."""
    results = [None] * count

    def run(number):
        results[number] = target(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
