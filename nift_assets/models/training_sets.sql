{{ config(by='training_set', group='training') }}

-- The pairs of one row of the study, in sample order, so that a smaller set is a prefix of a larger one (Figure 2).

with

training_set as (
    select * from {{ study('training_sets') }} where name = {{ partition }}
),

halves as (
    select * from {{ ref('halves') }}
),

completions as (
    select * from {{ ref('completions') }}
),

filtered_completions as (
    select * from {{ ref('filtered_completions') }}
),

---------- what the row's filter keeps

kept as (
    select completions.teacher, completions.document_id, completions.completion
    from completions
    inner join training_set on completions.teacher = training_set.teacher and training_set.filter = 'none'
    where completions.status = 'ok'
        or (completions.status = 'truncated' and training_set.keep_truncated)

    union all

    select filtered_completions.teacher, filtered_completions.document_id, filtered_completions.completion
    from filtered_completions
    inner join training_set
        on filtered_completions.teacher = training_set.teacher and training_set.filter = 'uppercase_start'
),

ranked as (
    select
        kept.*,
        halves.first_half,
        halves.sample_rank,
        row_number() over (order by halves.sample_rank) as place
    from kept
    inner join halves using (document_id)
),

final as (
    select
        training_set.name as training_set,
        ranked.teacher,
        ranked.document_id,
        ranked.sample_rank,
        ranked.first_half as prompt,
        ranked.completion as response
    from ranked
    cross join training_set
    where training_set.rows is null or ranked.place <= training_set.rows
    order by ranked.place
)

select * from final
