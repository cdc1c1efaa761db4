"""The pure core: which processes there are, and what to do about them.

Theory of operation
===================

Facts go in, actions come out::

    fact ──► Scoreboard.apply ──► policy.decide ──► actions ──► the supervisor performs them
                   ▲                                   │
                   └───────────────────────────────────┘  each action is applied as well

Everything here runs in the master, in its one thread. Nothing here reads a clock, makes a system call or draws
a random number (an import contract forbids it): the time is an argument, in monotonic seconds, and `spread`
replaces randomness. So a life of hours is simulated in milliseconds, and a failure is replayed from its seed
(tests/core/simulator.py).

**Scoreboard** (`scoreboard`, `rows`). It only records. A fact may be late, doubled, or about a process that is
gone: what children send is not trusted, and an unknown number changes nothing. An action is applied when it is
ordered, before it is performed; so it is never ordered twice, and its result finds its row.

**Policy** (`policy`, with the rules of `recycling` and `autoscale`). `decide` is level-triggered: it looks at
what is, not at what changed. It may be called at any time and must be called after each change and at
`Plan.wake_at`; a lost or merged event costs nothing, since the next call sees the same scoreboard. A rule is a
function from a `PoolView` to actions and edits no row. `decide` runs the rules in order on a copy, applies the
actions of the first rule that has any, and starts from the first rule again, until no rule has any. So each
rule sees the effects of those before it. The order is:

1. judge what is on trial: promote or abandon the candidate, request the stacks of overdue workers, adopt or
   give up a zygote that was forked from a worker. Before the kills: what runs out of time fails for its own
   reason, and not because one of its processes was killed;
2. kill what missed its deadline, so that it no longer counts as capacity;
3. let ready workers of the current generation serve, before any old worker retires: capacity never drops;
4. remove what no generation needs: workers, then zygotes (a zygote's exit handlers remove what its workers use);
5. recycle workers at a limit, then choose the size of the pool, then retire what is beyond it;
6. start what is missing: a refork, zygotes, workers. Last, so that room that was freed above is used.

**A generation** is a candidate first: a zygote loads the application and forks workers, and none of them
serves. With enough ready workers it is promoted to the current generation; if it fails or takes longer than
``timeouts.start``, it is abandoned (at the first start, with nothing to fall back to, failed workers are retried
until then). The current one becomes old at the next promotion: its workers retire one by
one as those of the new one serve. Old and abandoned generations disappear with their last process. Within a
generation, a zygote that a warm worker forked (a refork) is adopted once its first worker is ready.

**Invariants**, which the simulator checks after each step:

1. after a plan was applied, the policy has nothing to add: no action is ordered twice;
2. a slot has one worker, there are at most ``maximum`` + ``surge`` workers, the size is within the limits;
3. nothing is started while stopping or during a backoff;
4. `Plan.wake_at` is no later than any deadline, and None when nothing is due;
5. no rollout and no recycling reduces the number of serving workers below the floor;
6. a worker is killed only after a missed deadline, or by a quick stop;
7. only workers of the current generation begin to serve; after calm there is one generation, of the right size;
8. a stop ends, however the processes behave;
9. the pool does not shrink within seconds of a growth;
10. nothing is started that is not needed, and no zygote exits before the workers that use what it made.

tests/core/test_mutants.py breaks each of them and demands that the simulator notices.

**The service as a whole** (`lifecycle`) is a table of states and events, for the same reasons. `status` renders
the scoreboard as the STATUS line and the list of problems.
"""
