<?php
// As naps.py: hrtime() is the same monotonic clock.
$begun = hrtime(true) / 1e9;
if ($_SERVER["REQUEST_URI"] === "/nap") {
    usleep(100000);
}
printf("%d %.6f", getmypid(), $begun);
