{{ config(group='scores', plot='figure_2') }}

-- Figure 2 of the paper: MT-Bench by the number of pairs of one teacher that were trained on.

select
    backbone, teacher, pairs, name, training_set,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'figure_2'
order by backbone, teacher, pairs, place
