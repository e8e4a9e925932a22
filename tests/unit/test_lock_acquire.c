/* The lock table, as scripts: holds, expiry, exactly-once results and queues. */
#include "tests/unit/lock_script.h"

/* An exclusive hold keeps others out; its release lets them in. */
static void test_acquire(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=1000", "ok s1 d1000"}, {"@0 open ttl=1000", "ok s2 d1000"},
           {"@1 s1 acquire a by=o1 X ttl=50", "ok #1 d51 | granted a o1 X#1"},
           {"@2 s2 acquire a by=o2 X ttl=50", "conflict holder=o1"},
           {"@2 s2 acquire a by=o2 S ttl=50", "conflict holder=o1"},
           {"@3 s1 acquire a by=o1 X ttl=80", "ok #1 d83 | renewed a o1 X#1"},
           {"@4 s2 release a by=o2", "not_owner"}, {"@4 s2 release b by=o2", "not_held"},
           {"@4 s2 release a token=1", "ok | ended a o1 X#1 released"},
           {"@5 s2 acquire a by=o2 S ttl=50", "ok #2 d55 | granted a o2 S#2"},
           {"@5 s1 acquire a by=o1 S ttl=50", "ok #3 d55 | granted a o1 S#3"},
           {"@6 s1 acquire a by=o3 X", "conflict holder=o2"},
           {"@7 s1 release a by=o1", "ok | ended a o1 S#3 released"},
           {"@7 s2 release a by=o2", "ok | ended a o2 S#2 released"},
           {"@8 s1 acquire a by=o3 X", "ok #4 | granted a o3 X#4"});
}

/* A lease ends at its deadline, not before, and a renewal at the deadline is too late. */
static void test_expiry(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100000", "ok s1 d100000"},
           {"@0 s1 acquire a by=o1 X ttl=50", "ok #1 d50 | granted a o1 X#1"},
           {"@49 s1 acquire a by=o2 X ttl=50", "conflict holder=o1"},
           {"@49 s1 renew a by=o1", "ok #1 d99 | renewed a o1 X#1"},
           {"@98 s1 renew a token=1 ttl=20", "ok #1 d118 | renewed a o1 X#1"},
           {"@118 s1 renew a token=1", "not_held | ended a o1 X#1 expired"},
           {"@118 s1 acquire a by=o2 X ttl=10", "ok #2 d128 | granted a o2 X#2"},
           {"@118 s1 renew a by=o2 ttl=9", "invalid"}, {"@128 tick", "ok | ended a o2 X#2 expired"},
           {"@128 s1 acquire a by=o2 X", "ok #3 | granted a o2 X#3"},
           {"@129 s1 renew a by=o2", "invalid"});
}

/* A repetition returns the first result and changes nothing. */
static void test_once(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=1000", "ok s1 d1000"},
           {"@1 s1 acquire a by=o1 X ttl=50 seq=5", "ok #1 d51 | granted a o1 X#1"},
           {"@2 s1 acquire a by=o1 X ttl=50 seq=5", "ok #1 d51 again@1"},
           {"@3 s1 release a by=o1 seq=6", "ok | ended a o1 X#1 released"},
           {"@4 s1 acquire a by=o2 X ttl=50 seq=7", "ok #2 d54 | granted a o2 X#2"},
           {"@4 s1 acquire a by=o1 X seq=8", "conflict holder=o2"},
           {"@5 s1 acquire a by=o1 X seq=8", "conflict holder=o2 again@4"},
           {"@5 s1 release a by=o1 seq=6", "ok again@3"},
           {"@6 s1 acquire b by=o1 X ttl=50 seq=9 ack=6", "ok #3 d56 | granted b o1 X#3"},
           {"@7 s1 release a by=o1 seq=6", "stale_seq"},
           {"@8 s1 release a by=o2 seq=7", "ok #2 d54 again@4"},
           {"@9 s1 acquire a by=o1 X seq=0", "invalid"},
           {"@9 s9 acquire a by=o1 X seq=1", "no_session"},
           {"@9 s1 acquire a by=o1 X wait=inf seq=20 ack=20", "stale_seq"});
}

/* The kept result of a queued request follows its outcome. */
static void test_once_queued(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=1000", "ok s1 d1000"},
           {"@0 s1 acquire a by=o1 X ttl=500 seq=1", "ok #1 d500 | granted a o1 X#1"},
           {"@1 s1 acquire a by=o2 X ttl=50 wait=inf seq=2",
            "queued | queued a o2 X; wanted a o1 X#1"},
           {"@2 s1 acquire a by=o2 X ttl=50 wait=inf seq=2", "queued again@1"},
           {"@3 s1 acquire a by=o3 X ttl=50 wait=7 seq=3", "queued | queued a o3 X"},
           {"@4 s1 acquire a by=o4 X ttl=50 wait=inf seq=4", "queued | queued a o4 X"},
           {"@5 s1 cancel cancel=4 seq=5", "ok | refused a o4 X canceled"},
           {"@5 s1 cancel cancel=4 seq=6", "not_found"},
           {"@6 s1 acquire a by=o4 X ttl=50 wait=inf seq=4", "canceled again@5"},
           {"@9 s1 acquire a by=o3 X ttl=50 wait=7 seq=3", "queued again@3"},
           {"@10 s1 acquire a by=o3 X ttl=50 wait=7 seq=3",
            "timeout again@10 | refused a o3 X timeout"},
           {"@11 s1 release a by=o1 seq=7", "ok | ended a o1 X#1 released; granted a o2 X#2 s1/2"},
           {"@12 s1 acquire a by=o2 X ttl=50 wait=inf seq=2", "ok #2 d61 again@11"});
}

/* First come first served: later shared requests don't pass an exclusive waiter. */
static void test_queue(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=r1 S", "ok #1 | granted a r1 S#1"},
           {"@1 s1 acquire a by=w1 X wait=inf", "queued | queued a w1 X; wanted a r1 S#1"},
           {"@2 s1 acquire a by=r2 S", "conflict"},
           {"@2 s1 acquire a by=r2 S wait=inf", "queued | queued a r2 S"},
           {"@3 s1 acquire a by=r3 S wait=inf", "queued | queued a r3 S"},
           {"@4 s1 acquire a by=w2 X wait=inf", "queued | queued a w2 X"},
           {"@5 s1 acquire a by=r4 S wait=inf", "queued | queued a r4 S"},
           {"@6 s1 release a by=r1",
            "ok | ended a r1 S#1 released; granted a w1 X#2 s1/2; wanted a w1 X#2"},
           {"@7 s1 release a by=w1", "ok | ended a w1 X#2 released; granted a r2 S#3 s1/4; granted "
                                     "a r3 S#4 s1/5; wanted a r2 S#3; wanted a r3 S#4"},
           {"@8 s1 release a by=r3", "ok | ended a r3 S#4 released"},
           {"@9 s1 release a by=r2",
            "ok | ended a r2 S#3 released; granted a w2 X#5 s1/6; wanted a w2 X#5"},
           {"@10 s1 cancel cancel=99", "not_found"},
           {"@11 s1 release a by=w2", "ok | ended a w2 X#5 released; granted a r4 S#6 s1/7"});
}

/* Who gives up lets those behind it through. */
static void test_queue_gap(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=9000", "ok s1 d9000"},
        {"@0 s1 acquire a by=r1 S", "ok #1 | granted a r1 S#1"},
        {"@1 s1 acquire a by=w1 X wait=10", "queued | queued a w1 X; wanted a r1 S#1"},
        {"@2 s1 acquire a by=r2 S wait=inf", "queued | queued a r2 S"},
        {"@3 s1 acquire a by=r3 S wait=inf", "queued | queued a r3 S"},
        {"@11 tick", "ok | refused a w1 X timeout; granted a r2 S#2 s1/3; granted a r3 S#3 s1/4"},
        {"@12 s1 acquire a by=w2 X wait=inf",
         "queued | queued a w2 X; wanted a r1 S#1; wanted a r2 S#2; wanted a r3 S#3"},
        {"@13 s1 acquire a by=r4 S wait=inf", "queued | queued a r4 S"},
        {"@14 s1 cancel cancel=5", "ok | refused a w2 X canceled; granted a r4 S#4 s1/6"});
}

/* Who holds part of a lock need not wait for one that waits for him. */
static void test_yield(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=p1 S range=0-9 kind=posix", "ok #1 | granted a p1 S#1[0-9]"},
           {"@0 s1 acquire a by=p2 X range=0-30 kind=posix wait=inf",
            "queued | queued a p2 X[0-30]; wanted a p1 S#1[0-9]"},
           {"@0 s1 acquire a by=p1 X range=20-25 kind=posix",
            "ok #2 | granted a p1 X#2[20-25]; wanted a p1 X#2[20-25]"},
           {"@0 s1 acquire a by=p1 X range=0-9 kind=posix",
            "ok #3 | ended a p1 S#1[0-9] released; granted a p1 X#3[0-9]; wanted a p1 X#3[0-9]"},
           {"@0 s1 acquire a by=p3 X range=28-29 kind=posix", "conflict"},
           {"@0 s1 release a by=p1 kind=posix", "ok | ended a p1 X#2[20-25] released; ended a p1 "
                                                "X#3[0-9] released; granted a p2 X#4[0-30] s1/2"});
}

/* Two requests of one owner that wait are both granted. */
static void test_same_owner(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X ttl=500", "ok #1 d500 | granted a o1 X#1"},
           {"@0 s1 acquire a by=o2 X wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
           {"@0 s1 acquire a by=o3 X wait=inf", "queued | queued a o3 X"},
           {"@0 s1 acquire a by=o2 X wait=inf", "queued | queued a o2 X"},
           {"@0 s1 release a by=o1", "ok | ended a o1 X#1 released; granted a o2 X#2 s1/2; granted "
                                     "a o2 X#2 s1/4; wanted a o2 X#2"},
           {"@0 s1 release a by=o2", "ok | ended a o2 X#2 released; granted a o3 X#3 s1/3"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acquire), cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_once),    cmocka_unit_test(test_once_queued),
        cmocka_unit_test(test_queue),   cmocka_unit_test(test_queue_gap),
        cmocka_unit_test(test_yield),   cmocka_unit_test(test_same_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
