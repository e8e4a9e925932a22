/* The lock table, as scripts: directories, links, renames, breaks. */
#include "tests/unit/lock_script.h"

/* They are made and removed by name; implicit ones go with their last entry. */
static void test_directories(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=9000", "ok s1 d9000"}, {"@0 s1 acquire d/a by=o1 X", "no_parent"},
        {"@0 s1 mkdir d perm=0755 uid=7", "ok | mkdir d"}, {"@0 s1 mkdir d", "exists"},
        {"@0 s1 acquire d by=o1 X", "is_dir"},
        {"@0 s1 acquire d/a by=o1 X", "ok #1 | granted d/a o1 X#1"},
        {"@0 s1 acquire d/a/b by=o1 X parents", "not_dir"}, {"@0 s1 mkdir d/a/b", "not_dir"},
        {"@0 s1 mkdir d/a", "exists"}, {"@0 s1 rmdir d", "not_empty"},
        {"@0 s1 rmdir d/a", "not_dir"},
        {"@0 s1 release d/a by=o1", "ok | ended d/a o1 X#1 released"},
        {"@0 s1 rmdir d", "ok | rmdir d"}, {"@0 s1 rmdir d", "not_found"},
        {"@0 s1 acquire p/q/r by=o1 X parents", "ok #2 | mkdir p; mkdir p/q; granted p/q/r o1 X#2"},
        {"@0 s1 mkdir p/q perm=0700", "ok | mkdir p/q"},
        {"@0 s1 release p/q/r by=o1", "ok | ended p/q/r o1 X#2 released"},
        {"@0 s1 rmdir p/q", "ok | rmdir p/q; rmdir p"},
        {"@0 s1 setattr / uid=3 perm=0700", "ok | setattr "},
        {"@0 s1 setattr nope uid=3", "not_found"}, {"@0 s1 rmdir /", "invalid"},
        {"@0 s1 mkdir x/y", "no_parent"}, {"@0 s1 mkdir x/y parents", "ok | mkdir x; mkdir x/y"});
}

/* The dot-lock idiom, and handing a lock over to another name. */
static void test_link(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire tmp by=o1 X ttl=50 kind=excl", "ok #1 d50 | granted tmp o1 X#1"},
           {"@1 s1 link tmp,lock by=o1", "ok #2 d51 | granted lock o1 X#2"},
           {"@2 s1 link tmp,lock by=o1", "exists"}, {"@2 s1 link tmp,x by=o9", "not_owner"},
           {"@2 s1 link lock2,x by=o1", "not_held"},
           {"@3 s1 release tmp by=o1", "ok | ended tmp o1 X#1 released"},
           {"@4 s1 acquire lock by=o2 X wait=inf", "queued | queued lock o2 X; wanted lock o1 X#2"},
           {"@5 s1 rename lock,lock2 by=o1",
            "ok #2 d51 | renamed lock->lock2 o1 X#2; granted lock o2 X#3 s1/7"},
           {"@5 s1 rename lock,lock2 by=o2", "exists"},
           {"@6 s1 rename lock2,lock3 token=2", "ok #2 d51 | renamed lock2->lock3 o1 X#2"},
           {"@6 s1 acquire lock4 by=o4 X", "ok #4 | granted lock4 o4 X#4"},
           {"@6 s1 link lock4,lock5 by=o4", "invalid"},
           {"@6 s1 rename lock4,lock4 by=o4", "exists"}, {"@50 tick", "ok"});
}

/* Wherever the hold stands that a token names, if asked so. */
static void test_anywhere(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X ttl=50", "ok #1 d50 | granted a o1 X#1"},
           {"@0 s1 rename a,b token=1", "ok #1 d50 | renamed a->b o1 X#1"},
           {"@1 s1 renew a token=1", "not_held"},
           {"@1 s1 acquire a by=o2 X ttl=50", "ok #2 d51 | granted a o2 X#2"},
           {"@1 s1 renew a token=1", "not_owner"},
           {"@1 s1 renew a token=1 anywhere", "ok #1 d51 | renewed b o1 X#1"},
           {"@1 s1 renew a by=o1 anywhere", "not_owner"},
           {"@1 s1 note a token=1 anywhere note=n", "ok #1 d51 | noted b o1 X#1"},
           {"@1 s1 renew a token=9 anywhere", "not_held"},
           {"@1 s1 rename a,c token=1 anywhere", "ok #1 d51 | renamed b->c o1 X#1"},
           {"@1 s1 link a,d token=1 anywhere", "ok #3 d51 | granted d o1 X#3"},
           {"@1 s1 release nope token=1 anywhere", "ok | ended c o1 X#1 released"},
           {"@1 s1 release a token=1 anywhere", "not_held"});
}

/* A conflict names who is in the way where the hold stands, not where it was last seen. */
static void test_anywhere_conflict(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 S ttl=50", "ok #1 d50 | granted a o1 S#1"},
           {"@0 s1 rename a,b token=1", "ok #1 d50 | renamed a->b o1 S#1"},
           {"@1 s1 acquire b by=o2 S", "ok #2 | granted b o2 S#2"},
           {"@1 s1 acquire a by=o3 X", "ok #3 | granted a o3 X#3"},
           {"@2 s1 convert a token=1 X anywhere seq=50", "conflict holder=o2"},
           {"@2 s1 convert a token=1 X anywhere seq=50", "conflict holder=o2 again@2"},
           {"@3 s1 release a by=o3", "ok | ended a o3 X#3 released"},
           {"@3 s1 convert a token=1 X anywhere", "conflict holder=o2"});
}

/* An operator removes exactly the hold he names. */
static void test_break(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 S", "ok #1 | granted a o1 S#1"},
           {"@0 s1 acquire a by=o2 S", "ok #2 | granted a o2 S#2"},
           {"@0 s1 acquire a by=o3 X wait=inf",
            "queued | queued a o3 X; wanted a o1 S#1; wanted a o2 S#2"},
           {"@0 s1 break a", "invalid"}, {"@0 s1 break a token=9", "not_owner"},
           {"@0 s1 break b token=1", "not_held"},
           {"@0 s1 break a token=1", "ok | ended a o1 S#1 broken"},
           {"@0 s1 note a by=o2 note=hello", "ok #2 | noted a o2 S#2"},
           {"@0 s1 note a by=o1 note=hello", "not_owner"},
           {"@0 s1 break a token=2", "ok | ended a o2 S#2 broken; granted a o3 X#3 s1/3"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directories), cmocka_unit_test(test_link),
        cmocka_unit_test(test_anywhere),    cmocka_unit_test(test_anywhere_conflict),
        cmocka_unit_test(test_break),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
