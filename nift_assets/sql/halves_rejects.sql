{{ config(group='data', portioned_by='sample_rank') }}

with

raw_sample as (
    select * from {{ ref('raw_sample') }}
),

final as (
    select
        document_id,
        sample_rank,
        words,
        case
            when words = 0 then 'no words'
            when regexp_matches(text, '[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}].{9}')
                then 'no spaces'
            else 'one word'
        end as reason
    from raw_sample
    where words < 2
    order by sample_rank
)

select * from final
