{{ config(group='completions', plot='funnel') }}

-- How many documents reach each step for each teacher. A filter drops where the teacher names it, in the teacher's
-- order, and what an earlier one dropped is not dropped again; the others only say what they would have found. Of a
-- filter that has not been run over a teacher's completions nothing is said.

with

teachers as (
    select name as teacher, row_number() over () as teacher_place from {{ study('teachers') }}
),

filters as (
    select name as filter, row_number() over () as filter_place from {{ study('filters') }}
),

teacher_filters as (
    select * from {{ study('teacher_filters') }}
),

raw_sample as (
    select count(*) as documents from {{ ref('raw_sample') }}
),

halves as (
    select count(*) as documents from {{ ref('halves') }}
),

completions as (
    select teacher, document_id, status from {{ ref('completions') }}
),

removals as (
    select teacher, document_id, filter from {{ ref('removals') }}
),

filter_runs as (
    select teacher, filter from {{ ref('filter_runs') }}
),

filtered_completions as (
    select teacher, count(*) as documents from {{ ref('filtered_completions') }} group by teacher
),

---------- what became of the requests

asked as (
    select
        teacher,
        count(*) as asked,
        count(*) filter (where status not in ('rejected', 'exhausted', 'expired', 'unknown')) as answered,
        count(*) filter (where status = 'ok') as ok
    from completions
    group by teacher
),

---------- what each filter finds among the whole answers, and the first of the teacher's that drops each of them

found as (
    select removals.teacher, removals.document_id, removals.filter, teacher_filters.place
    from removals
    inner join completions using (teacher, document_id)
    left join teacher_filters using (teacher, filter)
    where completions.status = 'ok'
),

first_drops as (
    select teacher, document_id, min(place) as place from found where place is not null group by all
),

flagged as (
    select teacher, filter, count(*) as flagged from found group by all
),

dropped as (
    select teacher, place, count(*) as dropped from first_drops group by all
),

all_dropped as (
    select teacher, sum(dropped) as dropped from dropped group by all
),

filter_steps as (
    select
        asked.teacher,
        filters.filter,
        teacher_filters.place is not null as drops,
        5 + row_number() over (
            partition by asked.teacher
            order by teacher_filters.place nulls last, filters.filter_place
        ) as place,
        coalesce(flagged.flagged, 0) as flagged,
        coalesce(dropped.dropped, 0) as dropped,
        asked.ok
    from asked
    inner join filter_runs using (teacher)
    inner join filters using (filter)
    left join teacher_filters using (teacher, filter)
    left join flagged using (teacher, filter)
    left join dropped on asked.teacher = dropped.teacher and teacher_filters.place = dropped.place
),

filters_run as (
    select teacher, count(*) as number from filter_steps group by teacher
),

---------- one row per step

steps as (
    select teacher, 1 as place, 'sampled' as step, false as is_filter, true as drops, null::bigint as flagged,
        raw_sample.documents as kept
    from teachers, raw_sample

    union all

    select teacher, 2, 'cut', false, true, null, halves.documents from teachers, halves

    union all

    select teacher, 3, 'asked', false, true, null, asked from asked

    union all

    select teacher, 4, 'answered', false, true, null, answered from asked

    union all

    select teacher, 5, 'ok', false, true, null, ok from asked

    union all

    select
        teacher, place, filter, true, drops, flagged,
        ok - sum(dropped) over (partition by teacher order by place)
    from filter_steps

    union all

    -- Counted from the table itself, so that a step that does not add up shows. A teacher of whom the filters leave
    -- something and the table has nothing is one it was not made of yet.
    select asked.teacher, 6 + coalesce(filters_run.number, 0), 'kept', false, true, null, coalesce(documents, 0)
    from asked
    left join filtered_completions using (teacher)
    left join filters_run using (teacher)
    left join all_dropped using (teacher)
    where documents is not null or asked.ok = coalesce(all_dropped.dropped, 0)
),

final as (
    select
        steps.teacher,
        steps.place,
        steps.step,
        steps.is_filter,
        steps.drops,
        steps.flagged,
        coalesce(lag(steps.kept) over (partition by steps.teacher order by steps.place) - steps.kept, 0)::bigint
            as dropped,
        steps.kept::bigint as kept
    from steps
    inner join teachers using (teacher)
    order by teachers.teacher_place, steps.place
)

select * from final
