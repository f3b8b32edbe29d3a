{{ config(by='teacher', group='completions') }}

-- Promise P5: only an answer that ended by itself enters training; what became of the others is kept here.

with

completions as (
    select * from {{ ref('completions') }}
),

final as (
    select
        teacher,
        document_id,
        sample_rank,
        status as reason,
        finish_reason,
        completion
    from completions
    where status <> 'ok'
    order by sample_rank
)

select * from final
