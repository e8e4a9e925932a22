/* The lock table, as scripts: sessions, delays, bounds and malformed commands. */
#include "tests/unit/lock_script.h"

/* A session that ran out stays while nobody wants what it has, and can be resumed. */
static void test_lapse(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100000", "ok s2 d100000"},
           {"@1 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
           {"@1 s1 acquire b by=o1 X ttl=500", "ok #2 d501 | granted b o1 X#2"},
           {"@100 tick", "ok | lapsed s1"}, {"@101 s1 acquire c by=o1 X", "no_session"},
           {"@102 s1 acquire a by=o1 X seq=1", "ok #1 again@1"},
           {"@103 s1 keepalive", "ok d203 | resumed s1"}, {"@203 tick", "ok | lapsed s1"},
           {"@204 s2 acquire a by=o2 X",
            "ok #3 | ended a o1 X#1 session_ended; s-ended s1; granted a o2 X#3"},
           {"@205 s1 keepalive", "no_session"},
           {"@206 s2 acquire b by=o2 X", "conflict holder=o1"});
}

/* It ends at its deadline when somebody waits. */
static void test_lapse_wanted(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100000", "ok s2 d100000"},
           {"@1 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
           {"@1 s1 acquire b by=o1 X", "ok #2 | granted b o1 X#2"},
           {"@2 s2 acquire a by=o2 X wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
           {"@3 s1 acquire c by=o1 X", "ok #3 | granted c o1 X#3"},
           {"@4 s2 acquire c by=o2 S wait=inf", "queued | queued c o2 S; wanted c o1 X#3"},
           {"@5 s1 acquire a by=o3 X wait=inf", "queued | queued a o3 X"},
           {"@100 tick", "ok | refused a o3 X session_ended; ended a o1 X#1 session_ended; ended b "
                         "o1 X#2 session_ended; ended c o1 X#3 session_ended; s-ended s1; granted "
                         "a o2 X#4 s2/1; granted c o2 S#5 s2/2"});
}

/* A lapsed session ends with its last hold; close ends at once; leases stay. */
static void test_lapse_last(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100000", "ok s2 d100000"},
           {"@1 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"}, {"@100 tick", "ok | lapsed s1"},
           {"@101 s2 break a token=1", "ok | ended a o1 X#1 broken; s-ended s1"},
           {"@102 s1 keepalive", "no_session"},
           {"@103 s2 acquire a by=o2 X", "ok #2 | granted a o2 X#2"},
           {"@103 s2 acquire b by=o2 X ttl=500", "ok #3 d603 | granted b o2 X#3"},
           {"@104 s2 close", "ok | ended a o2 X#2 session_ended; s-ended s2"},
           {"@105 open ttl=100", "ok s3 d205"},
           {"@106 s3 acquire b by=o3 X", "conflict holder=o2"});
}

/* A lock is ungrantable for a while after its holder ran out. */
static void test_delay(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X ttl=50 delay=30", "ok #1 d50 | granted a o1 X#1"},
           {"@10 s1 acquire a by=o2 X ttl=50 wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
           {"@50 s1 acquire a by=o3 X", "conflict | ended a o1 X#1 expired"},
           {"@51 s1 acquire a by=o3 X wait=10", "queued | queued a o3 X"},
           {"@61 tick", "ok | refused a o3 X timeout"},
           {"@80 tick", "ok | delay-over a; granted a o2 X#2 s1/2"},
           {"@81 s1 release a by=o2", "ok | ended a o2 X#2 released"},
           {"@81 s1 acquire a by=o1 X ttl=50 delay=30", "ok #3 d131 | granted a o1 X#3"},
           {"@82 s1 release a by=o1", "ok | ended a o1 X#3 released"},
           {"@82 s1 acquire a by=o1 X ttl=10 delay=30", "ok #4 d92 | granted a o1 X#4"},
           {"@92 s1 acquire a by=o1 X", "delayed | ended a o1 X#4 expired"},
           {"@92 s1 mkdir a", "delayed"}, {"@93 s1 link a,b by=o1", "not_held"},
           {"@122 s1 acquire a by=o1 X", "ok #5 | delay-over a; granted a o1 X#5"});
}

/* Every bound answers limit and changes nothing. */
static void test_limits(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=100", "ok s1 d100"},
        {"@0 term holds=2 waiters=1 sessions=2 dirs=1 persession=2", "ok"},
        {"@0 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
        {"@0 s1 acquire b by=o1 X", "ok #2 | granted b o1 X#2"},
        {"@0 s1 acquire c by=o1 X ttl=500", "limit"}, {"@0 s1 acquire a by=o2 X wait=inf", "limit"},
        {"@0 s1 release b by=o1", "ok | ended b o1 X#2 released"},
        {"@0 s1 acquire a by=o2 X wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
        {"@0 open ttl=5000", "ok s2 d5000"}, {"@0 s2 acquire a by=o3 X wait=inf ttl=500", "limit"},
        {"@0 s1 mkdir d", "ok | mkdir d"}, {"@0 s1 mkdir e", "limit"},
        {"@0 s1 acquire d/e/f by=o1 X parents", "limit"}, {"@0 open ttl=5000", "limit"},
        {"@100 s2 keepalive", "ok d5100 | refused a o2 X session_ended; lapsed s1"},
        {"@101 open ttl=5000", "ok s3 d5101 | ended a o1 X#1 session_ended; s-ended s1"},
        {"@102 open ttl=5000", "limit"}, {"@102 open ttl=5", "invalid"});
}

/* Malformed commands are refused. */
static void test_invalid(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=1000", "ok s1 d1000"}, {"@0 s1 acquire a//b by=o1 X", "invalid"},
           {"@0 s1 acquire . by=o1 X", "invalid"},
           {"@0 s1 acquire .holdfast by=o1 X parents", "invalid"}, {"@0 s1 acquire a X", "invalid"},
           {"@0 s1 acquire a by=o1", "invalid"}, {"@0 s1 acquire a by=o1 X ttl=9", "invalid"},
           {"@0 s1 acquire a by=o1 X ttl=2592000001", "invalid"},
           {"@0 s1 acquire a by=o1 X perm=010000", "invalid"}, {"@0 s1 renew a", "invalid"},
           {"@0 s1 convert a by=o1", "invalid"}, {"@0 s1 link a by=o1", "invalid"},
           {"@0 s1 mkdir a perm=010000", "invalid"}, {"@0 epoch epoch=0", "invalid"},
           {"@0 epoch epoch=2", "ok"}, {"@0 epoch epoch=2", "invalid"},
           {"@0 epoch epoch=65536", "invalid"},
           {"@0 s1 acquire a by=o1 X", "ok #562949953421313 | granted a o1 X#562949953421313"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lapse),      cmocka_unit_test(test_lapse_wanted),
        cmocka_unit_test(test_lapse_last), cmocka_unit_test(test_delay),
        cmocka_unit_test(test_limits),     cmocka_unit_test(test_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
