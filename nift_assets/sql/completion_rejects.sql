{{ config(by='teacher', group='completions', portioned_by='sample_rank') }}

-- Promise P5: an answer that did not end by itself enters training only where a training set says so
-- (`keep_truncated`); what became of each is kept here.

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
