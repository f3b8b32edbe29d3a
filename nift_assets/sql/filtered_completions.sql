{{ config(by='teacher', group='completions', portioned_by='sample_rank') }}

-- What none of the teacher's own filters drops. A filter of the study that the teacher does not name only reports.

with

completions as (
    select * from {{ ref('completions') }}
),

removals as (
    select * from {{ ref('removals') }}
),

teacher_filters as (
    select * from {{ study('teacher_filters') }} where teacher = {{ partition }}
),

dropped as (
    select removals.document_id
    from removals
    inner join teacher_filters using (filter)
),

final as (
    select
        completions.teacher,
        completions.document_id,
        completions.sample_rank,
        completions.completion
    from completions
    anti join dropped using (document_id)
    where completions.status = 'ok'
    order by completions.sample_rank
)

select * from final
