{{ config(by='teacher', group='completions') }}

with

completions as (
    select * from {{ ref('completions') }}
),

uppercase_start_removals as (
    select * from {{ ref('uppercase_start_removals') }}
),

final as (
    select
        completions.teacher,
        completions.document_id,
        completions.sample_rank,
        completions.completion
    from completions
    anti join uppercase_start_removals using (document_id)
    where completions.status = 'ok'
    order by completions.sample_rank
)

select * from final
