/* The lock table, as scripts: ranges, converting, several paths, deadlocks. */
#include "tests/unit/lock_script.h"

/* Holds of disjoint ranges don't conflict. */
static void test_ranges(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X range=0-9", "ok #1 | granted a o1 X#1[0-9]"},
           {"@0 s1 acquire a by=o2 X range=10-19", "ok #2 | granted a o2 X#2[10-19]"},
           {"@0 s1 acquire a by=o3 S range=9-10", "conflict holder=o1"},
           {"@0 s1 acquire a by=o3 S range=20-", "ok #3 | granted a o3 S#3[20-]"},
           {"@0 s1 acquire a by=o4 S", "conflict holder=o1"},
           {"@0 s1 acquire a by=o4 X range=5-4", "invalid"},
           {"@0 s1 acquire a by=o4 X range=5-15 wait=inf",
            "queued | queued a o4 X[5-15]; wanted a o1 X#1[0-9]; wanted a o2 X#2[10-19]"},
           {"@1 s1 release a by=o1", "ok | ended a o1 X#1[0-9] released"},
           {"@2 s1 release a by=o2",
            "ok | ended a o2 X#2[10-19] released; granted a o4 X#4[5-15] s1/7"});
}

/* A lock of the same owner is replaced in its range; unlocking splits. */
static void test_posix(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=p1 X range=0-99 kind=posix", "ok #1 | granted a p1 X#1[0-99]"},
           {"@0 s1 release a by=p1 range=40-49 kind=posix", "ok | ended a p1 X#1[40-49] released"},
           {"@0 s1 acquire a by=p2 X range=45-45 kind=posix", "ok #2 | granted a p2 X#2[45-45]"},
           {"@0 s1 acquire a by=p1 S range=10-19 kind=posix",
            "ok #3 | ended a p1 X#1[10-19] released; granted a p1 S#3[10-19]"},
           {"@0 s1 acquire a by=p2 S range=15-15 kind=posix", "ok #4 | granted a p2 S#4[15-15]"},
           {"@0 s1 acquire a by=p1 X range=10-19 kind=posix", "conflict holder=p2"},
           {"@0 s1 release a by=p2 range=15-15 kind=posix", "ok | ended a p2 S#4[15-15] released"},
           {"@0 s1 acquire a by=p1 X range=10-19 kind=posix",
            "ok #5 | ended a p1 X#1[0-9] released; ended a p1 X#1[20-39] released; ended a p1 "
            "S#3[10-19] released; granted a p1 X#5[0-39]"},
           {"@0 s1 acquire a by=p1 X range=10-19 kind=posix",
            "ok #6 | ended a p1 X#5[0-39] released; granted a p1 X#6[0-39]"},
           {"@0 s1 release a by=p1 range=30-30 kind=posix", "ok | ended a p1 X#6[30-30] released"},
           {"@0 s1 break a token=1", "ok | ended a p1 X#1[50-99] broken"},
           {"@0 s1 release a by=p1 range=0-5 kind=ofd", "ok | ended a p1 X#6[0-5] released"},
           {"@0 s1 release a by=p1 kind=posix",
            "ok | ended a p1 X#6[6-29] released; ended a p1 X#6[31-39] released"},
           {"@0 s1 release a by=p1 kind=posix", "ok"}, {"@0 s1 release a by=p1", "not_owner"},
           {"@0 s1 release c by=p1 kind=posix", "ok"});
}

/* More is a new grant, less keeps the token; two who raise are a deadlock. */
static void test_convert(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X ttl=500", "ok #1 d500 | granted a o1 X#1"},
           {"@1 s1 convert a by=o1 S", "ok #1 d500 | converted a o1 S#1"},
           {"@1 s1 acquire a by=o2 S ttl=500", "ok #2 d501 | granted a o2 S#2"},
           {"@2 s1 convert a by=o1 X", "conflict holder=o2"},
           {"@3 s1 convert a by=o1 X wait=inf", "queued | queued a o1 X; wanted a o2 S#2"},
           {"@4 s1 convert a by=o2 X wait=inf", "deadlock"},
           {"@5 s1 acquire a by=o3 S wait=inf", "queued | queued a o3 S"},
           {"@6 s1 release a by=o2", "ok | ended a o2 S#2 released; converted a o1 X#3; granted a "
                                     "o1 X#3 s1/5; wanted a o1 X#3"},
           {"@7 s1 convert a token=1 S", "not_owner"},
           {"@8 s1 convert a by=o1 S", "ok #3 d500 | converted a o1 S#3; granted a o3 S#4 s1/7"},
           {"@9 s1 convert a by=o1 S", "ok #3 d500"}, {"@9 s1 convert a by=o9 S", "not_owner"},
           {"@9 s1 convert b by=o9 S", "not_held"},
           {"@9 s1 acquire a by=o1 X wait=inf", "queued | queued a o1 X; wanted a o3 S#4"},
           {"@10 s1 release a by=o1", "ok | ended a o1 S#3 released; refused a o1 X not_held"});
}

/* Several paths at once, all or none. */
static void test_multi(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire b by=o1 X", "ok #1 | granted b o1 X#1"},
           {"@1 s1 acquire a,b,c by=o2 X ttl=500", "conflict holder=o1"},
           {"@1 s1 acquire a,b,c by=o2 X ttl=500 wait=inf",
            "queued | queued a o2 X; queued b o2 X; queued c o2 X; wanted b o1 X#1"},
           {"@2 s1 acquire a by=o3 X", "conflict"},
           {"@2 s1 acquire c by=o3 X wait=inf", "queued | queued c o3 X"},
           {"@3 s1 release b by=o1", "ok | ended b o1 X#1 released; granted a o2 X#2 s1/3; granted "
                                     "b o2 X#3 s1/3; granted c o2 X#4 s1/3; wanted c o2 X#4"},
           {"@4 s1 acquire a,b,c by=o2 X ttl=600",
            "ok #2 d604 | renewed a o2 X#2; renewed b o2 X#3; renewed c o2 X#4"},
           {"@4 s1 acquire a,a by=o2 X", "invalid"}, {"@4 s1 acquire a,a/b by=o2 X", "invalid"},
           {"@5 s1 release c by=o2", "ok | ended c o2 X#4 released; granted c o3 X#5 s1/5"},
           {"@6 s1 acquire a,d by=o2 X ttl=500",
            "ok #6 d506 | ended a o2 X#2 released; granted a o2 X#6; granted d o2 X#7"});
}

/* A request that would close a cycle of waits is refused. */
static void test_deadlock(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"}, {"@0 open ttl=9000", "ok s2 d9000"},
           {"@0 s1 acquire a by=p1 X kind=posix agent=1", "ok #1 | granted a p1 X#1"},
           {"@0 s2 acquire b by=p2 X kind=posix agent=1", "ok #2 | granted b p2 X#2"},
           {"@0 s1 acquire c by=p3 X kind=posix agent=3", "ok #3 | granted c p3 X#3"},
           {"@1 s1 acquire b by=p1 X kind=posix agent=1 wait=inf",
            "queued | queued b p1 X; wanted b p2 X#2"},
           {"@2 s1 acquire a by=p3 X kind=posix agent=3 wait=inf",
            "queued | queued a p3 X; wanted a p1 X#1"},
           {"@3 s2 acquire c by=p2 X kind=posix agent=1 wait=inf", "deadlock"},
           {"@4 s2 acquire c by=p2 X kind=posix wait=5", "queued | queued c p2 X; wanted c p3 X#3"},
           {"@5 s1 acquire a by=p4 X kind=flock agent=1 wait=inf", "deadlock"},
           {"@6 s2 release b by=p2 kind=posix",
            "ok | ended b p2 X#2 released; granted b p1 X#4 s1/3"});
}

/* A grant is undone only if nobody built on it since, be it at the same instant. */
static void test_conditions(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"}, {"@0 open ttl=9000", "ok s2 d9000"},
           {"@5 s1 acquire a by=o1 X ttl=50", "ok #1 d55 | granted a o1 X#1"},
           {"@6 s1 release a token=1 untouched", "ok | ended a o1 X#1 released"},
           {"@7 s1 acquire a by=o1 X ttl=50", "ok #2 d57 | granted a o1 X#2"},
           {"@7 s2 acquire a by=o1 X ttl=50", "ok #2 d57 | renewed a o1 X#2"},
           {"@7 s1 release a token=2 untouched", "not_owner"},
           {"@8 s1 release a token=2 by=o2 his", "not_owner"},
           {"@8 s1 renew a token=2 by=o2 his ttl=90", "not_owner"},
           {"@8 s1 renew a token=2 by=o1 his ttl=90", "ok #2 d98 | renewed a o1 X#2"},
           {"@8 s1 release a token=2 by=o1 his", "ok | ended a o1 X#2 released"},
           {"@9 s1 acquire b by=o1 S ttl=50", "ok #3 d59 | granted b o1 S#3"},
           {"@9 s2 acquire b by=o1 X ttl=50", "ok #4 d59 | converted b o1 X#4"},
           {"@9 s2 release b token=4 untouched", "not_owner"},
           {"@9 s1 acquire c by=o1 X ttl=50", "ok #5 d59 | granted c o1 X#5"},
           {"@9 s1 renew c token=5", "ok #5 d59 | renewed c o1 X#5"},
           {"@9 s2 release c token=5 untouched", "not_owner"},
           {"@9 s1 acquire d by=o1 X ttl=50", "ok #6 d59 | granted d o1 X#6"},
           {"@9 s2 acquire d by=o1 S ttl=50", "ok #6 d59 | converted d o1 S#6"},
           {"@9 s1 release d token=6 untouched", "not_owner"},
           {"@9 s2 renew d token=6", "ok #6 d59 | renewed d o1 S#6"},
           {"@9 s1 release d token=6 untouched", "not_owner"},
           {"@9 s2 renew b token=4", "ok #4 d59 | renewed b o1 X#4"},
           {"@9 s1 release b token=4 untouched", "not_owner"},
           {"@10 s1 link b,e by=o1 token=4", "ok #7 d60 | granted e o1 X#7"},
           {"@10 s1 renew e token=7", "ok #7 d60 | renewed e o1 X#7"},
           {"@10 s1 release e token=7 untouched", "not_owner"},
           {"@10 s1 link b,f by=o1 token=4", "ok #8 d60 | granted f o1 X#8"},
           {"@10 s1 release f token=8 untouched", "ok | ended f o1 X#8 released"});
}

/* What an owner was promised stays, though a request of before comes late. */
static void test_no_less(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"}, {"@0 open ttl=9000", "ok s2 d9000"},
           {"@1 s1 acquire a by=o1 X ttl=90", "ok #1 d91 | granted a o1 X#1"},
           {"@2 s2 acquire a by=o1 X ttl=10 no_less", "ok #1 d91 | renewed a o1 X#1"},
           {"@2 s1 release a token=1 untouched", "not_owner"},
           {"@3 s2 renew a by=o1 ttl=20 no_less", "ok #1 d91 | renewed a o1 X#1"},
           {"@3 s2 acquire a by=o1 S ttl=10 no_less", "ok #1 d91 | renewed a o1 X#1"},
           {"@3 s2 acquire a by=o1 S ttl=10 no_less wait=5", "ok #1 d91 | renewed a o1 X#1"},
           {"@4 s2 acquire a by=o1 X ttl=10 limit=3 no_less", "ok #1 d91 | renewed a o1 X#1"},
           {"@5 s2 acquire a by=o1 X ttl=95 no_less", "ok #1 d100 | renewed a o1 X#1"},
           {"@6 s2 renew a by=o1 ttl=20", "ok #1 d26 | renewed a o1 X#1"},
           {"@6 s2 release a by=o1", "ok | ended a o1 X#1 released"},
           /* More than what is held is given, with a deadline that is no earlier. */
           {"@6 s1 acquire b by=o1 S ttl=90", "ok #2 d96 | granted b o1 S#2"},
           {"@7 s2 acquire b by=o1 X ttl=10 no_less", "ok #3 d96 | converted b o1 X#3"},
           /* Slots of different semaphores: neither gives all that the other does. */
           {"@8 s1 acquire c by=o1 X ttl=90 limit=2", "ok #4 d98 | granted c o1 K2#4"},
           {"@8 s2 acquire c by=o1 X ttl=10 limit=3 no_less", "ok #4 d98 | renewed c o1 K2#4"},
           {"@8 s2 acquire c by=o1 X ttl=10 limit=1 no_less", "exists"},
           {"@8 s2 acquire c by=o1 X ttl=10 no_less", "exists"},
           {"@8 s2 acquire c by=o1 S ttl=10 no_less", "exists"},
           /* Of two in the queue, the second is the one of before. */
           {"@9 s1 acquire d by=o9 X ttl=90", "ok #5 d99 | granted d o9 X#5"},
           {"@9 s1 acquire d by=o1 X ttl=80 wait=inf", "queued | queued d o1 X; wanted d o9 X#5"},
           {"@9 s2 acquire d by=o1 X ttl=10 wait=inf", "queued | queued d o1 X"},
           {"@9 s2 acquire d by=o1 S ttl=10 wait=inf", "queued | queued d o1 S"},
           {"@9 s2 acquire d by=o1 X ttl=10 limit=4 wait=inf", "queued | queued d o1 K4"},
           {"@10 s1 release d by=o9",
            "ok | ended d o9 X#5 released; granted d o1 X#6 s1/6; renewed d o1 X#6; "
            "granted d o1 X#6 s2/14; renewed d o1 X#6; granted d o1 X#6 s2/15; renewed d o1 X#6; "
            "granted d o1 X#6 s2/16"},
           {"@11 s1 renew d by=o1 ttl=10 no_less", "ok #6 d90 | renewed d o1 X#6"},
           {"@12 s1 acquire e by=o9 X ttl=90", "ok #7 d102 | granted e o9 X#7"},
           {"@12 s1 acquire e by=o1 X ttl=80 limit=2 wait=inf",
            "queued | queued e o1 K2; wanted e o9 X#7"},
           {"@12 s2 acquire e by=o1 X ttl=10 wait=inf", "queued | queued e o1 X"},
           {"@13 s1 release e by=o9", "ok | ended e o9 X#7 released; granted e o1 K2#8 s1/10; "
                                      "refused e o1 X exists"},
           {"@14 s1 renew e by=o1 ttl=10 no_less", "ok #8 d93 | renewed e o1 K2#8"});
}

/* A piece of a hold that was split is raised, and waits for it: that piece, not its twin. */
static void test_raise_a_piece(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=100000", "ok s1 d100000"},
        {"@0 s1 acquire a by=o1 S range=0-9", "ok #1 | granted a o1 S#1[0-9]"},
        {"@0 s1 release a by=o1 range=5-6", "ok | ended a o1 S#1[5-6] released"},
        {"@0 s1 acquire a by=o2 S range=7-9", "ok #2 | granted a o2 S#2[7-9]"},
        {"@0 s1 acquire a by=o1 X range=7-9 wait=inf",
         "queued | queued a o1 X[7-9]; wanted a o2 S#2[7-9]"},
        {"@1 s1 release a by=o2",
         "ok | ended a o2 S#2[7-9] released; converted a o1 X#3[7-9]; granted a o1 X#3[7-9] s1/4"},
        {"@2 s1 acquire a by=o3 S range=0-4", "ok #4 | granted a o3 S#4[0-4]"},
        {"@2 s1 acquire a by=o3 S range=7-9", "conflict holder=o1"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_less),    cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_posix),      cmocka_unit_test(test_convert),
        cmocka_unit_test(test_multi),      cmocka_unit_test(test_deadlock),
        cmocka_unit_test(test_conditions), cmocka_unit_test(test_raise_a_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
