{{ config(group='data') }}

with

raw_sample as (
    select * from {{ ref('raw_sample') }}
),

final as (
    select
        document_id,
        sample_rank,
        words,
        case words when 0 then 'no words' else 'one word' end as reason
    from raw_sample
    where words < 2
    order by sample_rank
)

select * from final
