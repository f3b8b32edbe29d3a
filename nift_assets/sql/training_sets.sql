{{ config(by='training_set', group='training') }}

-- The pairs of one row of the study, in sample order, so that a smaller set is a prefix of a larger one (Figure 2).
-- Published pairs come in the order of their files; those without a response are left out, as empty completions are.

with

training_set as (
    select * from {{ study('training_sets') }} where name = {{ partition }}
),

training_set_filters as (
    select * from {{ study('training_set_filters') }} where training_set = {{ partition }}
),

halves as (
    select * from {{ ref('halves') }}
),

completions as (
    select * from {{ ref('completions') }}
),

removals as (
    select * from {{ ref('removals') }}
),

reference_sets as (
    select * from {{ ref('reference_sets') }}
),

---------- what the row's filters drop

dropped as (
    select removals.teacher, removals.document_id
    from removals
    inner join training_set_filters using (filter)
),

candidates as (
    select
        completions.teacher,
        completions.document_id,
        completions.completion,
        training_set.name as training_set,
        training_set.rows,
        training_set.refill,
        dropped.document_id is not null as is_dropped
    from completions
    inner join training_set on completions.teacher = training_set.teacher
    left join (select distinct * from dropped) as dropped
        on completions.teacher = dropped.teacher and completions.document_id = dropped.document_id
    where completions.status = 'ok'
        or (completions.status = 'truncated' and training_set.keep_truncated)
),

ranked as (
    select
        candidates.*,
        halves.first_half,
        halves.sample_rank,
        -- Whoever is not refilled is numbered with what is dropped.
        row_number() over (
            partition by candidates.is_dropped and candidates.refill
            order by halves.sample_rank
        ) as place
    from candidates
    inner join halves using (document_id)
),

---------- what others have published

published as (
    select
        training_set.name as training_set,
        training_set.rows,
        reference_sets.source as teacher,
        reference_sets.row_id as document_id,
        reference_sets."row" as sample_rank,
        reference_sets.prompt,
        reference_sets.response,
        row_number() over (order by reference_sets."row") as place
    from reference_sets
    inner join training_set on reference_sets.source = training_set.reference
    where regexp_matches(reference_sets.prompt, '[^\x09-\x0D\x1C-\x20\x85\p{Z}]')
        and regexp_matches(reference_sets.response, '[^\x09-\x0D\x1C-\x20\x85\p{Z}]')
),

final as (
    select
        training_set,
        teacher,
        document_id,
        sample_rank,
        first_half as prompt,
        completion as response
    from ranked
    where not is_dropped
        and ("rows" is null or place <= "rows")

    union all

    select training_set, teacher, document_id, sample_rank, prompt, response
    from published
    where "rows" is null or place <= "rows"

    order by sample_rank
)

select * from final
